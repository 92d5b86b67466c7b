// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package reload

import "os"

const (
	openFlags = 0
	hasModes  = false
)

var reloadSignals []os.Signal
