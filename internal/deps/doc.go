// SPDX-License-Identifier: Apache-2.0

// Package deps has no code: its test holds the module to the directions in
// which packages may depend on each other. The table at the head of
// deps_test.go is that of the design, and a new package is entered there.
package deps
