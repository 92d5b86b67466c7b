// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"path/filepath"
	"testing"
)

// workOf returns the iterations that der asks for, 0 if it is not to be parsed.
func workOf(der []byte) int {
	var info struct {
		Algorithm struct {
			OID    asn1.ObjectIdentifier
			Params struct {
				KDF struct {
					OID    asn1.ObjectIdentifier
					Params struct {
						Salt       []byte
						Iterations int
					}
				}
			}
		}
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return 0
	}
	return info.Algorithm.Params.KDF.Params.Iterations
}

func FuzzDecrypt(f *testing.F) {
	files, err := filepath.Glob("testdata/pkcs8/*.pem")
	must(f, err)
	for _, file := range files {
		f.Add(fixture(f, file), secret)
	}
	f.Add(encryptedWith(f, 1, 16, make([]byte, 16), make([]byte, 32)), "")
	f.Fuzz(func(t *testing.T, der []byte, passphrase string) {
		if len(der) > maxPair || workOf(der) > 10_000 {
			return // slow, as it may be
		}
		plain, err := decrypt(der, []byte(passphrase))
		if (plain == nil) != (err != nil) || len(plain) > len(der) {
			t.Errorf("%d bytes, %v", len(plain), err)
		}
	})
}

func FuzzBlocks(f *testing.F) {
	ca := newCA(f, "ca", nil)
	_, chain, key := ca.leaf(f)
	f.Add(chain)
	f.Add(append(chain, key...))
	f.Add(chain[:len(chain)-30])
	f.Add([]byte("-----BEGIN A-----\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := blocks(data)
		if err != nil {
			return
		}
		// Nothing of what looks like a block is left out.
		again := []byte(nil)
		for _, block := range list {
			again = append(again, pem.EncodeToMemory(block)...)
		}
		if n := bytes.Count(data, []byte("-----BEGIN ")); n < len(list) {
			t.Errorf("%d blocks of %d", len(list), n)
		}
		if len(list) > 0 {
			if same, err := blocks(again); err != nil || len(same) != len(list) {
				t.Errorf("%d blocks become %d, %v", len(list), len(same), err)
			}
		}
	})
}
