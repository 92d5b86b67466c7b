// SPDX-License-Identifier: Apache-2.0

// Server is HashiCorp's Vault, server and command line, as its own "minimal" build
// has it.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }
