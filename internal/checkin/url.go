// SPDX-License-Identifier: Apache-2.0

package checkin

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
)

// choice is {A|B} in an address.
var choice = regexp.MustCompile(`\{([^{}|]*)\|([^{}|]*)\}`)

// split returns the URLs for good and failed passes, and their host. Its errors do not
// quote the address.
func split(address string) (good, failed, host string, err error) {
	good, failed = choice.ReplaceAllString(address, "$1"), choice.ReplaceAllString(address, "$2")
	if strings.ContainsAny(good+failed, "{}") {
		return "", "", "", errors.New("the URL has braces that are not of the form {A|B}: A after a good pass, B after a failed one")
	}
	host, err = check(good)
	if err != nil {
		return "", "", "", err
	}
	other, err := check(failed)
	if err == nil && other != host {
		err = fmt.Errorf("the URL leads to %s after a good pass and to %s after a failed one: it must be one host", host, other)
	}
	return good, failed, host, err
}

func check(address string) (host string, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "", errors.New("the URL is not of the form https://HOST/PATH")
	}
	local := u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return "", fmt.Errorf("the URL at %s does not start with https://: others could read what is said there, and check in themselves", u.Host)
	}
	return u.Host, nil
}
