// SPDX-License-Identifier: Apache-2.0

package stepca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/internal/durable"
)

// host is where the CA listens, and the name that its web server has.
const host = "127.0.0.1"

// settings are what a CA was configured with.
type settings struct {
	file  string // step-ca's ca.json
	roots []byte // PEM
}

// configure makes the keys of a root and an intermediate and the configuration in
// dir, as "step ca init" does.
func configure(dir, address string, lifetime time.Duration) (settings, error) {
	root, rootKey, err := authority("step-ca test root", nil, nil)
	if err != nil {
		return settings{}, err
	}
	intermediate, key, err := authority("step-ca test intermediate", root, rootKey)
	if err != nil {
		return settings{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return settings{}, err
	}
	text, err := json.MarshalIndent(caJSON(dir, address, lifetime), "", "\t")
	if err != nil {
		return settings{}, err
	}
	s := settings{
		file:  filepath.Join(dir, "ca.json"),
		roots: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}),
	}
	for name, data := range map[string][]byte{
		"root.crt":         s.roots,
		"intermediate.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: intermediate.Raw}),
		"intermediate.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		"ca.json":          text,
	} {
		if err := durable.WriteFile(filepath.Join(dir, name), data, durable.PrivateFile); err != nil {
			return settings{}, err
		}
	}
	return s, nil
}

// caJSON is the configuration, by step-ca's words.
func caJSON(dir, address string, lifetime time.Duration) map[string]any {
	acme := map[string]any{"type": "ACME", "name": provisioner}
	if lifetime != 0 {
		acme["claims"] = map[string]string{
			"minTLSCertDuration":     lifetime.String(),
			"maxTLSCertDuration":     lifetime.String(),
			"defaultTLSCertDuration": lifetime.String(),
		}
	}
	return map[string]any{
		"root":      filepath.Join(dir, "root.crt"),
		"crt":       filepath.Join(dir, "intermediate.crt"),
		"key":       filepath.Join(dir, "intermediate.key"),
		"address":   address,
		"dnsNames":  []string{host},
		"logger":    map[string]string{"format": "text"},
		"db":        map[string]string{"type": "bbolt", "dataSource": filepath.Join(dir, "db")},
		"authority": map[string]any{"provisioners": []any{acme}},
	}
}

// authority makes a CA, signed by parent, or by itself if that is nil.
func authority(name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
