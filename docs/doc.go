// SPDX-License-Identifier: Apache-2.0

// Package docs holds the pages of the manual, and the tests that run what they
// show.
package docs
