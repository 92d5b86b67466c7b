// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/keyturn/keyturn/event"
)

// pauseDetail is since when, and why, nothing is renewed.
type pauseDetail struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
}

func pauseOf(p *event.Pause) *pauseDetail {
	if p == nil {
		return nil
	}
	return &pauseDetail{p.At, p.Reason}
}

func (p *pauseDetail) String() string {
	text := "paused since " + stamp(p.At)
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}
