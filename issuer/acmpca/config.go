// SPDX-License-Identifier: Apache-2.0

package acmpca

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/keyturn/keyturn/internal/cahttp"
)

const (
	// DefaultTemplate is AWS's own: a certificate for TLS servers and clients.
	DefaultTemplate = "EndEntityCertificate/V1"
	// DefaultLifetime is that of a certificate for which none is asked. AWS has none
	// itself.
	DefaultLifetime = 30 * 24 * time.Hour
	// DefaultTimeout bounds one request, its answer included.
	DefaultTimeout = 30 * time.Second
	// DefaultPatience bounds the wait for a certificate that is being signed. AWS
	// takes a second or a few.
	DefaultPatience = 2 * time.Minute

	// maxShortLived is the longest life of what a CA in the mode
	// SHORT_LIVED_CERTIFICATE signs.
	maxShortLived = 7 * 24 * time.Hour
)

// Config says which CA of AWS's signs. ARN is required; zero values of the others are
// the defaults.
type Config struct {
	// ARN names the CA:
	// arn:aws:acm-pca:REGION:ACCOUNT:certificate-authority/ID. It is asked in its own
	// region, whatever the environment says.
	ARN string
	// Template is the ARN of a template, or what follows the last colon and
	// "template/" in it, such as EndEntityServerAuthCertificate/V1; "" is
	// DefaultTemplate.
	Template string
	// Lifetime is that of a certificate for which none is asked; 0 is DefaultLifetime,
	// or seven days if the CA signs short-lived certificates alone. A CA's own end
	// bounds it: AWS refuses what would last longer.
	Lifetime time.Duration
	// Profile is the profile of the shared files whose credentials are used; "" is
	// AWS_PROFILE, else the default.
	Profile string
	// Endpoint is the URL of the service, such as that of a VPC endpoint: https, or http
	// on a loopback address; "" is AWS_ENDPOINT_URL_ACM_PCA, else AWS_ENDPOINT_URL, else
	// the region's.
	Endpoint string
	// Timeout bounds one request, its answer included; 0 is DefaultTimeout.
	Timeout time.Duration
	// Patience bounds the wait for a certificate that is being signed; 0 is
	// DefaultPatience.
	Patience time.Duration
}

// complete checks the configuration and fills in defaults. It returns the region, too.
func (c Config) complete() (Config, string, error) {
	a, err := parseARN(c.ARN)
	if err != nil {
		return c, "", err
	}
	if c.Template, err = templateARN(c.Template, a.Partition); err != nil {
		return c, "", err
	}
	for what, d := range map[string]*time.Duration{"timeout": &c.Timeout, "patience": &c.Patience, "lifetime": &c.Lifetime} {
		if *d < 0 {
			return c, "", fmt.Errorf("the %s is %s; it cannot be negative", what, *d)
		}
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Patience == 0 {
		c.Patience = DefaultPatience
	}
	if u, err := url.Parse(c.Endpoint); c.Endpoint != "" && (err != nil || u.Host == "" || u.User != nil || !cahttp.Protected(u)) {
		return c, "", errors.New("the endpoint is not the https URL of a service, such as https://acm-pca.eu-west-1.amazonaws.com")
	}
	return c, a.Region, nil
}

// parseARN reads the ARN of a CA.
func parseARN(s string) (arn.ARN, error) {
	if s == "" {
		return arn.ARN{}, errors.New("no ARN is given: `aws acm-pca list-certificate-authorities` shows those of your CAs")
	}
	a, err := arn.Parse(s)
	id, ok := strings.CutPrefix(a.Resource, "certificate-authority/")
	if err != nil || !ok || a.Service != "acm-pca" || a.Region == "" || id == "" || strings.Contains(id, "/") {
		return arn.ARN{}, fmt.Errorf("%.200q is not the ARN of a CA: arn:aws:acm-pca:REGION:ACCOUNT:certificate-authority/ID", s)
	}
	return a, nil
}

// templateARN returns a template's ARN, of its ARN or its name.
func templateARN(s, partition string) (string, error) {
	if s == "" {
		s = DefaultTemplate
	}
	name := s
	if strings.HasPrefix(s, "arn:") {
		_, name, _ = strings.Cut(s, ":acm-pca:::template/")
	}
	first, version, ok := strings.Cut(name, "/V")
	if !ok || first == "" || version == "" || strings.ContainsAny(name, ": ") {
		return "", fmt.Errorf("%.200q is not a template of AWS Private CA, such as %s", s, DefaultTemplate)
	}
	if strings.HasPrefix(s, "arn:") {
		return s, nil
	}
	return "arn:" + partition + ":acm-pca:::template/" + name, nil
}
