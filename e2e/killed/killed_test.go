// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/race"
)

// seeds is how many there are of each point: one with the race detector, which is in the
// test and not in what it kills.
func seeds() uint64 {
	switch {
	case os.Getenv("KEYTURN_SOAK") != "":
		return 25
	case race.Enabled:
		return 1
	}
	return 5
}

// lanes is how many processes run at once.
const lanes = 3

// TestKilled kills a process at every point, by several seeds.
func TestKilled(t *testing.T) {
	s := newStage(t)
	passes := s.passes(t)
	free := make(chan struct{}, lanes)
	var kills atomic.Int64
	t.Cleanup(func() { t.Logf("%d points, %d kills", len(crash.All()), kills.Load()) })
	for _, point := range crash.All() {
		ways := passes[point]
		if len(ways) == 0 {
			t.Errorf("no scenario comes by %s", point)
			continue
		}
		t.Run(strings.ReplaceAll(point, "/", "-"), func(t *testing.T) {
			t.Parallel()
			for seed := range seeds() {
				free <- struct{}{}
				func() {
					defer func() { <-free }()
					random := rand.New(rand.NewPCG(seed, uint64(len(point))))
					way := ways[random.IntN(len(ways))]
					sc, _ := find(way.scenario)
					s.kill(t, sc, point, 1+random.IntN(way.times), seed)
					kills.Add(1)
				}()
			}
		})
	}
}

// A way is how a point is come by.
type way struct {
	scenario string
	times    int
}

// passes plays each scenario without a kill, and returns how each point is come by.
func (s *stage) passes(t *testing.T) map[string][]way {
	t.Helper()
	all := all()
	counts := make([]map[string]int, len(all))
	t.Run("unharmed", func(t *testing.T) {
		for i, sc := range all {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				w := s.world(t, sc)
				file := filepath.Join(t.TempDir(), "passed")
				if _, err := w.play(sc, 0, "KEYTURN_CRASH_PASSED="+file); err != nil {
					t.Fatal(err)
				}
				must(t, w.lasting(true), sc.check(w))
				w.close()
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				counts[i] = make(map[string]int)
				for _, point := range strings.Fields(string(text)) {
					counts[i][point]++
				}
			})
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	ways := make(map[string][]way)
	for i, sc := range all {
		for point, n := range counts[i] {
			ways[point] = append(ways[point], way{sc.name, n})
		}
	}
	for point := range ways {
		if !slices.Contains(crash.All(), point) {
			t.Errorf("%s is not listed", point)
		}
	}
	return ways
}

// world makes one for a scenario.
func (s *stage) world(t testing.TB, sc scenario) *world {
	t.Helper()
	w := s.newWorld(t, sc.bare)
	if sc.prepare != nil {
		sc.prepare(w)
	}
	return w
}

// kill kills a scenario's process where it passes a point for the n-th time, or for the
// first, where it does not come there as often now, and has another one complete it.
func (s *stage) kill(t *testing.T, sc scenario, point string, n int, seed uint64) {
	t.Helper()
	for ; ; n = 1 {
		w := s.world(t, sc)
		said, err := w.play(sc, seed, "KEYTURN_CRASH="+point+":"+strconv.Itoa(n))
		when := fmt.Sprintf("scenario %s, seed %d, killed when %s was passed %d times", sc.name, seed, point, n)
		if err == nil && n > 1 {
			w.close()
			continue
		}
		if !errors.Is(err, errKilled) {
			t.Fatalf("%s: it is not killed: %v", when, err)
		}
		if err := w.lasting(false); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if sc.between != nil {
			if err := sc.between(w, said); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		if _, err := w.play(sc, seed); err != nil {
			t.Fatalf("%s: what goes on with it: %v", when, err)
		}
		if err := errors.Join(w.lasting(true), sc.check(w)); err != nil {
			t.Errorf("%s: after what has gone on with it: %v", when, err)
		}
		w.close()
		return
	}
}

var errKilled = errors.New("killed")

// play runs a scenario in a process of its own, and returns what it said.
func (w *world) play(sc scenario, seed uint64, env ...string) (said []string, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.stage.program)
	cmd.Env = append(append(os.Environ(), scenarioVariable+"="+sc.name, dirVariable+"="+w.dir, tenantVariable+"="+w.tenant,
		seedVariable+"="+strconv.FormatUint(seed, 10)), env...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err = cmd.Run()
	for line := range strings.Lines(out.String()) {
		said = append(said, strings.TrimSpace(line))
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL && ctx.Err() == nil {
			return said, errKilled
		}
		err = fmt.Errorf("%w: %s", err, problems.String())
	}
	return said, err
}
