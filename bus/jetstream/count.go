// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

var _ bus.Counter = (*Log)(nil)

// Count implements bus.Counter: the server tells the subjects that there are, of
// which each key has one. The connection needs the rights of a manager.
func (l *Log) Count(ctx context.Context, parts []string) (map[string]uint64, error) {
	found, err := l.js.Stream(ctx, l.stream.stream())
	var info *jetstream.StreamInfo
	if err == nil {
		info, err = found.Info(ctx, jetstream.WithSubjectFilter(l.stream.kept()+">"))
	}
	if err != nil {
		return nil, fmt.Errorf("bus: counting what is in stream %s: %w", l.stream.stream(), l.explain(err))
	}
	counts := make(map[string]uint64, len(parts))
	for _, part := range parts {
		counts[part] = 0
	}
	for subject := range info.State.Subjects {
		key, err := l.stream.key(subject)
		if err != nil {
			continue // the streams' ids are no keys
		}
		if part, _, _ := strings.Cut(key, "/"); slices.Contains(parts, part) {
			counts[part]++
		}
	}
	return counts, nil
}
