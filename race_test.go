// SPDX-License-Identifier: Apache-2.0

//go:build race

package keyturn_test

func init() { raceDetector = true }
