// SPDX-License-Identifier: Apache-2.0

// Package plural counts things in words.
package plural

import "fmt"

// Of returns a number with what is counted, a word that forms its plural by an s:
// "1 certificate", "0 certificates".
func Of[N int | int64](n N, what string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
