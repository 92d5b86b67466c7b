// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"fmt"
	"net/url"
	"strings"
)

// defaultPort is NATS's.
const defaultPort = "4222"

// parseURLs reads URLs that are separated by commas.
func parseURLs(list string) ([]*url.URL, error) {
	var urls []*url.URL
	for part := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.Hostname() == "" || u.Scheme != "nats" && u.Scheme != "tls" {
			return nil, fmt.Errorf("bus: %q is not a URL of the form nats://HOST:PORT or tls://HOST:PORT", Redact(part))
		}
		if u.Port() == "" {
			u.Host = strings.TrimSuffix(u.Host, ":") + ":" + defaultPort
		}
		urls = append(urls, u)
	}
	return urls, nil
}

// Redact takes everything secret out of a list of URLs: passwords, and tokens,
// which stand where a name would.
func Redact(list string) string {
	var out []string
	for part := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil {
			out = append(out, "[malformed URL]")
			continue
		}
		if u.User != nil {
			u.User = url.User("xxxxx")
		}
		out = append(out, u.String())
	}
	return strings.Join(out, ",")
}
