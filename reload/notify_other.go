// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package reload

// newNotifier returns none: there is polling.
func newNotifier(chan<- struct{}) (notifier, error) { return nil, nil }
