// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// usualReplicas is the number of copies of a stream in a cluster. The board has as
// many as the log: it need not outlive a power cut, but hosts shall be able to
// report, and to hear the managers, when one server is lost.
const usualReplicas = 3

// Codes of nats-server's errors (server/errors.json) for which nats.go has no name.
const (
	codeNoPeers     jetstream.ErrorCode = 10005 // no suitable peers for placement
	codeNoClustered jetstream.ErrorCode = 10074 // replicas > 1 not supported in non-clustered mode
)

// tooFewServers reports whether a stream was not made since there are fewer servers
// than it is to have copies.
func tooFewServers(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeNoPeers || api.ErrorCode == codeNoClustered)
}

// Ready is what Init found and made.
type Ready struct {
	ID       string // of the log
	Replicas int    // copies of the log and the board
	Made     bool   // there was no log
	Raised   bool   // there were fewer copies
}

// Init makes a tenant's streams as Create does, and gives those that there are
// more copies where they have fewer than replicas; 0 stands for 3 in a cluster that
// has so many servers, else 1. They are not made fewer. It returns when all copies
// are up to date. The connection needs the rights that Create needs, and to
// change, and take away, the two streams.
func (l *Log) Init(ctx context.Context, replicas int) (*Ready, error) {
	there, err := l.found(ctx)
	if err != nil {
		return nil, err
	}
	r := &Ready{Made: !there}
	if r.ID, err = create(ctx, l.conn, l.stream.tenant, "", replicas); err != nil {
		return nil, err
	}
	if r.Raised, err = l.raise(ctx, replicas); err != nil {
		return nil, err
	}
	if r.Replicas, err = l.awaitCopies(ctx); err != nil {
		return nil, fmt.Errorf("bus: waiting until all copies are up to date: %w", err)
	}
	return r, nil
}

// leaderTime is how long servers of a cluster that were just started get to choose a
// leader, who alone knows which streams there are.
const leaderTime = 30 * time.Second

// found reports whether the log is there.
func (l *Log) found(ctx context.Context) (bool, error) {
	wait, cancel := context.WithTimeout(ctx, leaderTime)
	defer cancel()
	for {
		_, _, err := l.stream.info(ctx)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return false, nil
		case !noAnswer(err):
			return false, err
		}
		select {
		case <-wait.Done():
			return false, err
		case <-time.After(copiesEvery):
		}
	}
}

// raise gives the log so many copies, and the board as many as the log then has.
func (l *Log) raise(ctx context.Context, replicas int) (raised bool, err error) {
	log, err := l.stream.state(ctx)
	if err != nil {
		return false, err
	}
	config, wanted := log.Config, replicas
	if wanted == 0 && log.Cluster != nil {
		wanted = usualReplicas
	}
	if config.Replicas < wanted {
		config.Replicas = wanted
		_, err := l.js.UpdateStream(ctx, config)
		switch {
		case replicas == 0 && tooFewServers(err):
			config = log.Config
		case err != nil:
			return false, fmt.Errorf("bus: giving stream %s %d copies: %w", l.stream.stream(), wanted, l.explain(err))
		default:
			raised = true
		}
	}
	again, err := l.board.stream.raiseBoard(ctx, config.Replicas)
	if err != nil {
		return false, fmt.Errorf("bus: giving stream %s %d copies: %w", l.board.stream.stream(), config.Replicas, l.explain(err))
	}
	if again { // it is another one
		_, err = create(ctx, l.conn, l.stream.tenant, log.Config.Metadata[metadataLog], config.Replicas)
	}
	return raised || again, err
}

// raiseBoard makes a board that has fewer copies anew: what one server does not
// write to the disk at once it cannot be made to share with others. What a board
// holds is said again within minutes.
func (s *stream) raiseBoard(ctx context.Context, replicas int) (raised bool, err error) {
	board, err := s.state(ctx)
	if err != nil || board.Config.Replicas >= replicas {
		return false, err
	}
	if err := s.js.DeleteStream(ctx, s.stream()); err != nil {
		return false, err
	}
	for {
		// Servers that are just taking the old one away may leave this unanswered.
		_, _, err := s.createPatiently(ctx, replicas)
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return true, err
		}
	}
}

// complete reports whether every copy has all that the leader has.
func complete(info *jetstream.StreamInfo) bool {
	if info.Cluster == nil {
		return true
	}
	missing := func(r *jetstream.PeerInfo) bool { return r.Offline || !r.Current || r.Lag > 0 }
	return len(info.Cluster.Replicas) == info.Config.Replicas-1 && !slices.ContainsFunc(info.Cluster.Replicas, missing)
}

// state asks for the stream.
func (s *stream) state(ctx context.Context) (*jetstream.StreamInfo, error) {
	found, err := s.js.Stream(ctx, s.stream())
	if err != nil {
		return nil, fmt.Errorf("bus: asking for stream %s: %w", s.stream(), s.explain(err))
	}
	return found.CachedInfo(), nil
}

// copiesEvery is how often it is looked whether copies are up to date.
const copiesEvery = 200 * time.Millisecond

// awaitCopies returns when all copies are up to date, and how many there are.
func (l *Log) awaitCopies(ctx context.Context) (replicas int, err error) {
	tick := time.NewTicker(copiesEvery)
	defer tick.Stop()
	for {
		ready := true
		for _, s := range []*stream{l.stream, l.board.stream} {
			info, err := s.state(ctx)
			if err != nil {
				return 0, err
			}
			replicas = info.Config.Replicas
			ready = ready && complete(info)
		}
		if ready {
			return replicas, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}
