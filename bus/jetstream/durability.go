// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keyturn/keyturn/bus"
)

// Bounds beyond which a copy of a stream counts as behind. What is written at the
// moment is on its way to the others.
const (
	maxLag  = 1000             // entries
	maxIdle = 10 * time.Second // since it was heard of
)

var _ bus.Durable = (*Log)(nil)

// Durability implements bus.Durable: the copies as the leader of the log knows
// them, and of each server how it writes to the disk, as far as it is known how to
// ask (Options.Monitor).
func (l *Log) Durability(ctx context.Context) (*bus.Durability, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	d := &bus.Durability{Engine: "NATS JetStream", Reduced: []bus.Reduction{}}
	var infos []*jetstream.StreamInfo
	for _, s := range []*stream{l.stream, l.board.stream} {
		info, err := s.state(ctx)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
		d.Streams = append(d.Streams, streamOf(s, info))
	}
	log := infos[0]
	d.Log, d.Head = log.Config.Metadata[metadataLog], log.State.LastSeq
	d.Servers = l.servers(log)
	if log.Cluster != nil {
		d.Cluster = log.Cluster.Name
	}
	syncs := l.syncs(ctx, d.Servers)
	for i := range d.Servers {
		s := &d.Servers[i]
		if s.Sync = syncs[s.Name]; s.Sync == "" {
			s.Sync = syncUnknown
		}
	}
	d.Reduced = append(d.Reduced, reducedSync(d.Servers)...)
	if d.Cluster != "" {
		d.Reduced = append(d.Reduced, reducedCopies(d)...)
	}
	return d, nil
}

func streamOf(s *stream, info *jetstream.StreamInfo) bus.Stream {
	out := bus.Stream{
		Name: s.stream(), What: s.what(), Entries: info.State.Msgs, Bytes: info.State.Bytes, Replicas: info.Config.Replicas, Current: 1,
	}
	if info.Cluster != nil {
		for _, r := range info.Cluster.Replicas {
			if current(r) {
				out.Current++
			}
		}
	}
	return out
}

// current reports whether a copy is up to date, but for what is on its way. A leader
// that has not heard of it since it leads says 0.
func current(r *jetstream.PeerInfo) bool {
	return !r.Offline && (r.Current || r.Lag <= maxLag && r.Active > 0 && r.Active <= maxIdle)
}

// servers are those that hold the log, the leader first.
func (l *Log) servers(log *jetstream.StreamInfo) []bus.Server {
	if log.Cluster == nil {
		return []bus.Server{{Name: l.nc.ConnectedServerName(), Current: true}}
	}
	all := []bus.Server{{Name: log.Cluster.Leader, Current: true}}
	for _, r := range log.Cluster.Replicas {
		all = append(all, bus.Server{Name: r.Name, Current: current(r), Lag: r.Lag})
	}
	return all
}

func reducedSync(servers []bus.Server) (all []bus.Reduction) {
	for _, s := range servers {
		switch s.Sync {
		case syncAlways:
		case syncUnknown:
			all = append(all, bus.Reduction{
				Reason: bus.ReducedSyncUnknown,
				Why:    fmt.Sprintf("it is unknown whether server %s has an entry on the disk before it acknowledges it", s.Name),
				Do:     "set sync_interval: always there, and say by --bus-monitor where that can be read",
			})
		default:
			all = append(all, bus.Reduction{
				Reason: bus.ReducedSync,
				Why:    fmt.Sprintf("server %s writes to the disk every %s only: a power cut loses what it acknowledged since", s.Name, s.Sync),
				Do:     "set sync_interval: always in its jetstream block, and restart it",
			})
		}
	}
	return all
}

func reducedCopies(d *bus.Durability) (all []bus.Reduction) {
	for _, s := range d.Streams {
		if s.Replicas < usualReplicas {
			all = append(all, bus.Reduction{
				Reason: bus.ReducedReplicas,
				Why:    fmt.Sprintf("stream %s has %d of %d copies in the cluster %s: the loss of one server can stop the bus", s.Name, s.Replicas, usualReplicas, d.Cluster),
				Do:     fmt.Sprintf("run: keyturn bus init nats --replicas %d", usualReplicas),
			})
		}
	}
	for _, s := range d.Servers {
		if !s.Current {
			all = append(all, bus.Reduction{
				Reason: bus.ReducedCopies,
				Why:    fmt.Sprintf("server %s does not have the newest entries (it is %d behind, or gone)", s.Name, s.Lag),
				Do:     "bring it back, before another one is lost",
			})
		}
	}
	return all
}
