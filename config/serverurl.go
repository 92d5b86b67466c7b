// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/url"

	"github.com/keyturn/keyturn/internal/cahttp"
)

// serverURL returns what reads the URL of a CA's server, where what goes there and comes
// back is protected; of and example are for its errors.
func serverURL(of, example string) func(string) (string, error) {
	return func(s string) (string, error) {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return "", fmt.Errorf("it is not the URL of %s, such as %s", of, example)
		}
		if !cahttp.Protected(u) {
			return "", fmt.Errorf("%.80q is not https, and leaves this machine: it can be read and changed on the way", s)
		}
		return s, nil
	}
}
