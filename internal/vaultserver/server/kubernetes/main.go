// SPDX-License-Identifier: Apache-2.0

// Kubernetes is Vault's auth method for Kubernetes as a plugin: the "minimal" build of
// Vault leaves it out.
package main

import (
	"fmt"
	"os"

	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/sdk/plugin"
)

func main() {
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: kubernetes.Factory}); err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
		os.Exit(1)
	}
}
