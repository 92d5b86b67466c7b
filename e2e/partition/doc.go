// SPDX-License-Identifier: Apache-2.0

// Package partition breaks the links between managers, the bus, replicas and a CA in all
// ways in which networks break, at each point of a renewal, and looks that everything
// finds together again. Bus and CA are real; it has only tests.
package partition
