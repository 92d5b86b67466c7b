// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync/atomic"
	"time"
)

// AnswerBuckets are the bounds of Stats.Answers, those that Prometheus' libraries have by
// default.
var AnswerBuckets = [...]time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Stats are what a Proxy has done since it was made.
type Stats struct {
	// Requests counts those that were answered, by the first digit of the status;
	// Requests[1] are those that became WebSockets.
	Requests [6]uint64
	// InFlight are requests under way, and WebSockets.
	InFlight int
	// Gone counts requests whose client went away before the answer.
	Gone uint64
	// Answers counts requests by the time until the header of their answer: at index i
	// those that took at most AnswerBuckets[i], and no less than the one before; all
	// others at the end. AnswerTime is the sum.
	Answers    [len(AnswerBuckets) + 1]uint64
	AnswerTime time.Duration
	// Unreachable, Late and Broken count the service's failures: no connection, no
	// answer in time, no answer at all or one that is none.
	Unreachable, Late, Broken uint64
	// Down says that the last request met such a failure.
	Down bool
	// Accepted counts connections, Open are those that are open, and BadHandshakes
	// counts TLS handshakes that failed.
	Accepted      uint64
	Open          int64
	BadHandshakes uint64
	// Draining says that Drain was called.
	Draining bool
}

type stats struct {
	requests   [6]atomic.Uint64
	gone       atomic.Uint64
	answers    [len(AnswerBuckets) + 1]atomic.Uint64
	answerTime atomic.Int64 // nanoseconds
	failures   [failureKinds]atomic.Uint64
	accepted   atomic.Uint64
	open       atomic.Int64
	handshakes atomic.Uint64
}

// answered counts an answer.
func (s *stats) answered(status int, took time.Duration) {
	if class := status / 100; class < len(s.requests) {
		s.requests[class].Add(1)
	}
	i := 0
	for i < len(AnswerBuckets) && took > AnswerBuckets[i] {
		i++
	}
	s.answers[i].Add(1)
	s.answerTime.Add(int64(took))
}

// Stats returns what the Proxy has done, each number for itself as of now.
func (p *Proxy) Stats() Stats {
	s := Stats{
		InFlight: p.flight.now(), Gone: p.stats.gone.Load(), AnswerTime: time.Duration(p.stats.answerTime.Load()),
		Unreachable: p.stats.failures[unreachable].Load(), Late: p.stats.failures[late].Load(), Broken: p.stats.failures[broken].Load(),
		Down: p.outage.down.Load(), Draining: p.draining.Load(),
		Accepted: p.stats.accepted.Load(), Open: p.stats.open.Load(), BadHandshakes: p.stats.handshakes.Load(),
	}
	for i := range s.Requests {
		s.Requests[i] = p.stats.requests[i].Load()
	}
	for i := range s.Answers {
		s.Answers[i] = p.stats.answers[i].Load()
	}
	return s
}
