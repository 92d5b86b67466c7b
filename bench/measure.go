// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// A contender does one piece of work in its way.
type contender struct {
	name string
	run  func(times int) error
	// ready, if not nil, comes before each run and is not measured.
	ready func() error
}

func (c *contender) prepare() error {
	if c.ready == nil {
		return nil
	}
	return c.ready()
}

// samples are what a contender needed: nanoseconds for one piece of work, one figure
// for each round, and allocations over all of them.
type samples struct {
	contender string
	ns        []float64
	allocs    uint64 // for one piece of work, rounded down as "go test" does
}

// interleave measures contenders side by side: in each round every one of them has a
// slice of time, in an order that is random anew. What disturbs the machine for longer
// than a slice so disturbs all of them, and ratios within a round leave it out.
func interleave(rounds int, slice time.Duration, contenders []contender) ([]samples, error) {
	times := make([]int, len(contenders))
	all := make([]samples, len(contenders))
	mallocs := make([]uint64, len(contenders))
	for i, c := range contenders {
		all[i].contender = c.name
		var err error
		if times[i], err = calibrate(slice, c); err != nil {
			return nil, err
		}
	}
	var before, after runtime.MemStats
	for range rounds {
		for _, i := range rand.Perm(len(contenders)) {
			if err := contenders[i].prepare(); err != nil {
				return nil, err
			}
			runtime.ReadMemStats(&before)
			start := time.Now()
			err := contenders[i].run(times[i])
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if err != nil {
				return nil, err
			}
			all[i].ns = append(all[i].ns, float64(took)/float64(times[i]))
			mallocs[i] += after.Mallocs - before.Mallocs
		}
	}
	for i := range all {
		all[i].allocs = mallocs[i] / uint64(rounds*times[i])
	}
	return all, nil
}

// allocations counts what c allocates for one piece of work, with no garbage collection
// in between: that empties the pools of crypto/tls, which are then filled again.
func allocations(c contender, times int) (uint64, error) {
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	if err := c.run(10); err != nil {
		return 0, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := c.run(times)
	runtime.ReadMemStats(&after)
	return (after.Mallocs - before.Mallocs) / uint64(times), err
}

// calibrate returns how often run can be done in a slice, once it is warm.
func calibrate(slice time.Duration, c contender) (int, error) {
	for n := 1; ; {
		if err := c.prepare(); err != nil {
			return 0, err
		}
		start := time.Now()
		if err := c.run(n); err != nil {
			return 0, err
		}
		took := max(time.Since(start), 1)
		if took >= slice/2 || took > slice/8 && n == 1 {
			return max(1, int(float64(n)*float64(slice)/float64(took))), nil
		}
		n = max(n+1, int(min(16, 0.7*float64(slice)/float64(took))*float64(n)))
	}
}

// A spread is a median and the quartiles about it.
type spread struct {
	Low    float64 `json:"low"`
	Median float64 `json:"median"`
	High   float64 `json:"high"`
}

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	at := func(q float64) float64 { return sorted[int(q*float64(len(sorted)-1)+0.5)] }
	return spread{at(0.25), at(0.5), at(0.75)}
}

// exactly is the spread of what was counted and not measured.
func exactly(v float64) spread { return spread{v, v, v} }

// ratio is by how much a is b, round by round.
func ratio(a, b samples) spread {
	return spreadOf(pairwise(a, b, func(x, y float64) float64 { return x / y }))
}

// above is by how many nanoseconds a is over b, round by round.
func above(a, b samples) spread {
	return spreadOf(pairwise(a, b, func(x, y float64) float64 { return x - y }))
}

func pairwise(a, b samples, f func(x, y float64) float64) []float64 {
	values := make([]float64, len(a.ns))
	for i := range values {
		values[i] = f(a.ns[i], b.ns[i])
	}
	return values
}

// heap returns the bytes of what is reachable.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // for what finalizers and pools held
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
