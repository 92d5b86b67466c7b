// SPDX-License-Identifier: Apache-2.0

package ondemand_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"

	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/ondemand"
)

// A service has its certificates issued as clients ask for them.
func ExampleSource() {
	ca, err := localca.New(localca.Config{}) // any issuer
	if err != nil {
		log.Fatal(err)
	}
	source := &ondemand.Source{
		Issuer:     ca,
		CommonName: "web.internal",
		Allow:      ondemand.Names("*.web.internal"),
	}
	defer source.Close()
	config := &tls.Config{GetCertificate: source.GetCertificate}

	for _, name := range []string{"shop.web.internal", "db.internal"} {
		cert, err := config.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil {
			fmt.Println(name, "is not allowed:", errors.Is(err, ondemand.ErrNotAllowed))
			continue
		}
		fmt.Println(cert.Leaf.DNSNames)
	}
	// Output:
	// [shop.web.internal web.internal]
	// db.internal is not allowed: true
}

// An Allow can be any function, such as a look at who the customers are.
func ExampleAllow() {
	customers := map[string]bool{"a.example": true}
	allow := ondemand.Allow(func(_ context.Context, name string) error {
		if !customers[name] {
			return errors.New("there is no such customer")
		}
		return nil
	})
	fmt.Println(allow(context.Background(), "a.example"))
	fmt.Println(allow(context.Background(), "b.example"))
	// Output:
	// <nil>
	// there is no such customer
}
