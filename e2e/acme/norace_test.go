// SPDX-License-Identifier: Apache-2.0

//go:build !race

package acme

const raceDetector = false
