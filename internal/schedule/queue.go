// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"cmp"
	"container/heap"
	"time"
)

// A Queue holds keys, each once, the most urgent first. The zero Queue is empty
// and ready. It must not be used by several goroutines at once.
type Queue struct {
	items queue
	index map[string]*item
}

// Urgency orders a Queue.
type Urgency struct {
	// By is until when something has to have happened: the soonest is first.
	By time.Time
	// First goes before others with the same By.
	First bool
}

// Compare returns -1 if u goes before v, 1 if v does, and else 0.
func (u Urgency) Compare(v Urgency) int {
	if n := u.By.Compare(v.By); n != 0 || u.First == v.First {
		return n
	}
	if u.First {
		return -1
	}
	return 1
}

// Put adds a key, or moves it to where it belongs by now.
func (q *Queue) Put(key string, u Urgency) {
	if i := q.index[key]; i != nil {
		i.Urgency = u
		heap.Fix(&q.items, i.at)
		return
	}
	if q.index == nil {
		q.index = make(map[string]*item)
	}
	i := &item{key: key, Urgency: u}
	q.index[key] = i
	heap.Push(&q.items, i)
}

// First returns the most urgent key; "" if there is none.
func (q *Queue) First() string {
	if len(q.items) == 0 {
		return ""
	}
	return q.items[0].key
}

// Urgency is that of the first key; zero if there is none.
func (q *Queue) Urgency() Urgency {
	if len(q.items) == 0 {
		return Urgency{}
	}
	return q.items[0].Urgency
}

// Remove takes a key out, and reports whether it was there.
func (q *Queue) Remove(key string) bool {
	i := q.index[key]
	if i == nil {
		return false
	}
	heap.Remove(&q.items, i.at)
	delete(q.index, key)
	return true
}

// Len is how many keys there are.
func (q *Queue) Len() int { return len(q.items) }

type item struct {
	key string
	Urgency
	at int // in the heap
}

// A queue is a heap.Interface whose items know their places.
type queue []*item

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	a, b := q[i], q[j]
	return cmp.Or(a.Compare(b.Urgency), cmp.Compare(a.key, b.key)) < 0
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

func (q *queue) Push(x any) {
	i := x.(*item)
	i.at = len(*q)
	*q = append(*q, i)
}

func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}
