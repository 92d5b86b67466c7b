// SPDX-License-Identifier: Apache-2.0

// Package crash names the points at which a process is killed by tests: what has
// to survive that is killed exactly there. In a program built without the tag
// "crashpoints" they are nothing.
package crash
