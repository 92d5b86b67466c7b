// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"sync"
)

// names are locks by name that can be waited for with a context. The zero value
// is ready.
type names struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed when the name is free; guarded by mu
}

// lock takes the name, and returns what frees it.
func (n *names) lock(ctx context.Context, name string) (free func(), err error) {
	for {
		n.mu.Lock()
		other, taken := n.taken[name]
		if !taken {
			own := make(chan struct{})
			if n.taken == nil {
				n.taken = make(map[string]chan struct{})
			}
			n.taken[name] = own
			n.mu.Unlock()
			return func() { n.free(name, own) }, nil
		}
		n.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (n *names) free(name string, own chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.taken, name)
	close(own)
}
