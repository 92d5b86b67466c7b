// SPDX-License-Identifier: Apache-2.0

package schedule_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/schedule"
)

// empty takes everything out of a queue, the first each time.
func empty(q *schedule.Queue) (keys []string) {
	for q.Len() > 0 {
		keys = append(keys, q.First())
		q.Remove(q.First())
	}
	return keys
}

// TestQueueOrder: what has to happen soonest is first, of that what goes before
// others, and of equals always the same.
func TestQueueOrder(t *testing.T) {
	var q schedule.Queue
	if q.First() != "" || q.Urgency() != (schedule.Urgency{}) || q.Len() != 0 || q.Remove("a") {
		t.Error("an empty queue has something")
	}
	q.Put("late", schedule.Urgency{By: from.Add(day)})
	q.Put("b", schedule.Urgency{By: from})
	q.Put("a", schedule.Urgency{By: from})
	q.Put("marked", schedule.Urgency{By: from, First: true})
	q.Put("first", schedule.Urgency{})
	q.Put("gone", schedule.Urgency{By: from.Add(-day)})
	if !q.Remove("gone") || q.Remove("gone") {
		t.Error("what was taken out is there, or was not")
	}
	if got, want := empty(&q), []string{"first", "marked", "a", "b", "late"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	q.Put("a", schedule.Urgency{By: from}) // it is of use again
	if q.First() != "a" || !q.Urgency().By.Equal(from) {
		t.Error(q.First(), q.Urgency())
	}
}

// TestQueueAgainstAList puts, moves and takes out at random.
func TestQueueAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q schedule.Queue
		model := make(map[string]schedule.Urgency)
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			key := fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "key"))
			if _, there := model[key]; rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				if q.Remove(key) != there {
					t.Fatalf("%s was there: %v", key, there)
				}
				delete(model, key)
				continue
			}
			u := schedule.Urgency{By: from.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "by")) * time.Hour), First: rapid.Bool().Draw(t, "first")}
			q.Put(key, u)
			model[key] = u
		}
		var want []string
		for key := range model {
			want = append(want, key)
		}
		slices.SortFunc(want, func(a, b string) int { return cmp.Or(model[a].Compare(model[b]), cmp.Compare(a, b)) })
		if q.Len() != len(want) {
			t.Fatalf("%d keys, want %d", q.Len(), len(want))
		}
		if got := empty(&q); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}
