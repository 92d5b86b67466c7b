// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
)

// TestDriver: what bus.OpenDir makes of a directory.
func TestDriver(t *testing.T) {
	d, err := bus.DriverOf("tls://bus.example:4222")
	if err != nil {
		t.Fatal(err)
	}
	secret := make([]byte, 32)
	user, err := d.User(secret)
	if err != nil || !strings.HasPrefix(user, "U") {
		t.Fatal(user, err)
	}
	if _, err := d.User(secret[1:]); err == nil {
		t.Error("a secret that is too short made a user")
	}
	mint := newMint(t)
	grant, err := mint.Replica("default", "web", "AAAAAAAAAAE", user)
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.Credentials(grant, secret)
	if err != nil || !strings.Contains(string(text), grant) {
		t.Fatal(err)
	}
	if _, err := d.Credentials(grant, append([]byte{1}, secret[1:]...)); err == nil || !strings.Contains(err.Error(), user) {
		t.Errorf("credentials of another user's grant: %v", err)
	}
	if _, err := d.Credentials("junk", secret); err == nil {
		t.Error("credentials of junk")
	}

	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, bus.URLFile), "nats://127.0.0.1:1\n")
	if _, err := bus.OpenDir(dir, bus.Options{}); err == nil {
		t.Error("opened without credentials")
	}
	writeFile(t, filepath.Join(dir, bus.ReplicaCreds), string(text))
	o := bus.Options{Logger: slog.New(slog.DiscardHandler)}
	c, err := bus.OpenDir(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Connected(ctx); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nothing listens, and Connected says %v", err)
	}
	writeFile(t, filepath.Join(dir, bus.URLFile), "nats://\n")
	if _, err := bus.OpenDir(dir, o); err == nil {
		t.Error("opened what is no URL")
	}
}
