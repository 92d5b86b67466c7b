// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"crypto"
	"crypto/ecdsa"
)

// PrivateKeys returns the keys of the root and of the intermediate.
func PrivateKeys(ca *CA) []crypto.Signer { return []crypto.Signer{ca.root.key, ca.intermediate.key} }

// Scalar returns the secret of an ECDSA key.
func Scalar(key crypto.Signer) ([]byte, error) { return key.(*ecdsa.PrivateKey).Bytes() }
