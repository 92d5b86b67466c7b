// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

// TestWhenToLeaveAServer is told by the requests that it did not answer.
func TestWhenToLeaveAServer(t *testing.T) {
	type step struct {
		after  time.Duration
		silent bool
		leave  bool
	}
	for what, steps := range map[string][]step{
		"a leader is chosen":        {{0, true, false}, {5 * time.Second, true, false}, {5 * time.Second, false, false}, {5 * time.Second, true, false}},
		"nobody answers":            {{0, true, false}, {5 * time.Second, true, false}, {7 * time.Second, true, true}},
		"nor does the next":         {{0, true, false}, {12 * time.Second, true, true}, {time.Second, true, false}, {12 * time.Second, true, false}, {7 * time.Second, true, true}},
		"long apart":                {{0, true, false}, {apartTime + 1, true, false}, {unansweredTime - 1, true, false}, {1, true, true}},
		"one that was never silent": {{0, false, false}, {time.Hour, false, false}},
	} {
		var u unanswered
		now := time.Now()
		for i, s := range steps {
			now = now.Add(s.after)
			if got := u.tooLong(s.silent, now); got != s.leave {
				t.Errorf("%s: step %d: %t", what, i, got)
			}
		}
	}
}

func TestNoAnswer(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{bus.ErrNotFound, false},
		{&jetstream.APIError{Code: 400}, false},
		{fmt.Errorf("a: %w", &jetstream.APIError{Code: 503}), true},
		{fmt.Errorf("a: %w", context.DeadlineExceeded), true},
		{fmt.Errorf("a: %w", errSilent), true},
		{errDisconnected, false},
	} {
		if noAnswer(c.err) != c.want {
			t.Errorf("%v: not %t", c.err, c.want)
		}
	}
}
