// SPDX-License-Identifier: Apache-2.0

//go:build !crashpoints

package crash

// Point is where a test may kill the process.
func Point(string) {}
