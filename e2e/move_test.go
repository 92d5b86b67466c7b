// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/keyturn/keyturn/internal/dynamolocal"
)

// TestBusMoved moves a fleet from the embedded bus to a table, as backup.md says,
// under hosts that are watched: they go on with what they have, and follow the new bus
// when they are told where it is. Then the table is lost, and restored.
func TestBusMoved(t *testing.T) {
	t.Parallel()
	table := newTableFleet(t)
	w := newWeb(t, 4, 2)
	for _, s := range append([]*sandbox{w.sandbox}, w.replicas[0].sandbox, w.replicas[1].sandbox) {
		for _, v := range table.env {
			if strings.HasPrefix(v, "AWS_") {
				s.env = append(s.env, v)
			}
		}
	}
	histories := []map[string]map[string]bool{w.histories()}
	w.manager.stop(t, sigterm)
	file := filepath.Join(t.TempDir(), "keyturn.log")
	w.keyturn("bus", "export", file, "--data", w.data)
	w.keyturn("bus", "verify", file, "--data", w.data)

	elsewhere := t.TempDir()
	for _, name := range []string{"bus", "snapshot/bus.keys"} {
		if err := os.Rename(filepath.Join(w.data, name), filepath.Join(elsewhere, filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
	}
	pointAt(t, w.data, tableURL)
	out := w.keyturn("bus", "import", file, "--data", w.data)
	if !strings.Contains(out, "it has 4 managed certificates") {
		t.Error(out)
	}
	w.manager = w.serveOn(w.sandbox)
	for _, r := range w.replicas {
		pointAt(t, r.dir, tableURL)
		r.mu.Lock() // no handshake of the watch is under way
		r.server.stop(t, sigterm)
		r.start(t)
		r.listens(t)
		r.mu.Unlock()
	}
	w.allConverged()
	for _, c := range w.rows() {
		if c.Epoch != 1 || c.Generation != 1 {
			t.Errorf("%s is at %d.%d: a move makes nothing anew", c.ID, c.Epoch, c.Generation)
		}
	}
	w.goesOn()
	histories = append(histories, w.histories())
	rows := w.rows()
	w.manager.stop(t, sigterm)
	table.lose()
	if how := w.start(keyturn, "serve", "--data", w.data, "--http", "127.0.0.1:0"); how.exits(t) == 0 {
		t.Error("keyturn serve takes another log for its own")
	}
	if r := w.restore(); r.Lost == 0 || r.Certificates != len(rows) || r.Epoch < 2 {
		t.Errorf("%+v; want all of %d certificates, and a new epoch", r, len(rows))
	}
	w.manager = w.serveOn(w.sandbox)
	w.whole(rows)
	w.renewAll()
	w.watch.check(t, append(histories, w.histories())...)
}

// lose deletes the table, and makes another one of its name.
func (f *tableFleet) lose() {
	f.t.Helper()
	client := api.New(api.Options{
		Region: dynamolocal.Region, BaseEndpoint: &f.server.Endpoint, Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	if _, err := client.UpdateTable(f.t.Context(), &api.UpdateTableInput{TableName: aws.String(busTable), DeletionProtectionEnabled: aws.Bool(false)}); err != nil {
		f.t.Fatal(err)
	}
	if _, err := client.DeleteTable(f.t.Context(), &api.DeleteTableInput{TableName: aws.String(busTable)}); err != nil {
		f.t.Fatal(err)
	}
	f.keyturn("bus", "init", "dynamodb", "--table", busTable)
}

// exits waits for the end of a process, and returns its code.
func (p *process) exits(t *testing.T) int {
	t.Helper()
	code, err := p.wait()
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// pointAt tells a directory where its bus is.
func pointAt(t *testing.T, dir, url string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "bus.url"), []byte(url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// listens waits until the host's server takes connections.
func (r *webReplica) listens(t *testing.T) {
	t.Helper()
	eventually(t, r.name, func() error {
		_, err := r.client("c00.web.example").handshake()
		return err
	})
}
