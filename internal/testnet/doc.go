// SPDX-License-Identifier: Apache-2.0

// Package testnet gives tests hosts: where the machine allows it, network
// namespaces behind a bridge of their own, each with an address, a loopback and a
// host name that no other has; else loopback addresses. It is there on Linux.
package testnet
