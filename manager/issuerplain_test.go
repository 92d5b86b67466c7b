// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/vaultserver"
)

// TestIssuersAreLetGo has tokens kept alive that last six seconds: until the issuer is
// replaced by one with other settings, and until the manager ends.
func TestIssuersAreLetGo(t *testing.T) {
	v := vaultserver.Start(t)
	v.PKI(t)
	v.Write(t, "pki/roles/web", map[string]any{"allow_any_name": true, "key_type": "any"})
	v.Policy(t, "sign", "pki/sign/web")
	_, m := newFleet(t)
	sign := func(name string) string {
		token := configure(t, m, v, "6s")
		if _, err := m.Make(t.Context(), Request{Names: []string{name}}); err != nil {
			t.Fatal(err)
		}
		return token
	}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	running.Go(func() { m.Run(ctx) })

	first := sign("first.example.com")
	second := sign("second.example.com")
	awaitEnd(t, v, first)
	if !lives(t, v, second) {
		t.Error("the token in use has ended, too")
	}
	cancel()
	running.Wait()
	awaitEnd(t, v, second)
}

// awaitEnd returns when nobody renews a token any more.
func awaitEnd(t *testing.T, v *vaultserver.Server, token string) {
	t.Helper()
	for lives(t, v, token) {
		time.Sleep(50 * time.Millisecond)
	}
}

func lives(t *testing.T, v *vaultserver.Server, token string) bool {
	t.Helper()
	_, err := v.Client().Auth().Token().LookupWithContext(t.Context(), token)
	if t.Context().Err() != nil {
		t.Fatal(err)
	}
	return err == nil
}
