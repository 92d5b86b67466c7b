// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

func TestReplaceMovesNames(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	put(t, &store, "id", root.leaf(t, names("a.test", "b.test", "B.test")))
	put(t, &store, "id", root.leaf(t, names("b.test", "c.test")))
	for name, want := range map[string]string{"a.test": "", "b.test": "id", "c.test": "id"} {
		if got := chosen(t, &store, &tls.ClientHelloInfo{ServerName: name}); got != want {
			t.Errorf("%s: chose %q, want %q", name, got, want)
		}
	}
	info, ok := store.Info("id")
	if got := fmt.Sprint(info.Names); !ok || got != "[b.test c.test]" {
		t.Errorf("Info says %s", got)
	}
}

func TestInfo(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	if _, ok := store.Info("id"); ok {
		t.Error("Info of an empty store")
	}
	if _, ok := store.Get(""); ok {
		t.Error("Get of an empty id")
	}
	before := time.Now().Truncate(time.Microsecond)
	put(t, &store, "id", root.leaf(t, names("A.test", "*.b.test", "192.0.2.1", "2001:db8::1")))
	cert, ok := store.Get("id")
	if !ok {
		t.Fatal("Get finds nothing")
	}
	info, ok := store.Info("id")
	if !ok || info.Obtained.Before(before) || info.Obtained.After(time.Now()) {
		t.Errorf("Info = %+v, %v", info, ok)
	}
	info.Obtained = time.Time{}
	want := keyturn.Info{
		ID: "id", Names: []string{"a.test", "*.b.test", "192.0.2.1", "2001:db8::1"},
		NotBefore: cert.Leaf.NotBefore, NotAfter: cert.Leaf.NotAfter,
		KeyType: x509.ECDSA, Server: true, Client: true, Open: true,
	}
	if got, want := fmt.Sprintf("%+v", info), fmt.Sprintf("%+v", want); got != want {
		t.Errorf("Info = %s, want %s", got, want)
	}

	put(t, &store, "client", root.leaf(t, names("c.test"), usages(x509.ExtKeyUsageClientAuth)))
	if info, _ := store.Info("client"); len(info.Names) != 0 || info.Server || !info.Client {
		t.Errorf("Info of a client certificate = %+v", info)
	}
	seen := map[string]int{}
	for id, info := range store.All() {
		if id != info.ID {
			t.Errorf("All yields %q with %+v", id, info)
		}
		seen[id]++
	}
	if len(seen) != 2 || seen["id"] != 1 || seen["client"] != 1 || store.Len() != 2 {
		t.Errorf("All yields %v, Len is %d", seen, store.Len())
	}
	for range store.All() {
		break
	}
}
