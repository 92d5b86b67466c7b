// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn"
)

// BenchmarkUnchanged looks at a directory of 100 pairs in which nothing changed, as each
// poll does. The time per pair is what the documentation tells.
func BenchmarkUnchanged(b *testing.B) {
	const pairs = 100
	dir := b.TempDir()
	ca := newCA(b, "ca", newCA(b, "root", nil))
	for i := range pairs {
		_, chain, key := ca.leaf(b)
		write(b, filepath.Join(dir, fmt.Sprintf("%d.crt", i)), chain)
		write(b, filepath.Join(dir, fmt.Sprintf("%d.key", i)), key)
	}
	var store keyturn.Store
	for name, watched := range map[string]func(chan<- struct{}) (notifier, error){"polled": noNotifier, "watched": newNotifier} {
		b.Run(name, func(b *testing.B) {
			w, err := watch(Options{Interval: -1, Logger: slog.New(slog.DiscardHandler)}, watched, []Source{Directory(&store, dir)})
			must(b, err)
			defer w.Close()
			b.ReportAllocs()
			for b.Loop() {
				must(b, w.Reload())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pairs, "ns/pair")
		})
	}
}
