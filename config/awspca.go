// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"regexp"
)

// AWSPCA are the settings of an issuer of type "awspca": a CA of AWS Private CA. The
// credentials are those that AWS's own tools would find on each manager's host.
type AWSPCA struct {
	ARN      string   `yaml:"arn"`                // of the CA; it is required
	Template string   `yaml:"template,omitempty"` // ARN or name; empty: EndEntityCertificate/V1
	Lifetime Duration `yaml:"lifetime,omitempty"` // of a certificate that asks for none; 0: 30 days, or 7 where that is the CA's most
	Profile  string   `yaml:"profile,omitempty"`  // of the shared files; empty: AWS_PROFILE, else the default
	Endpoint string   `yaml:"endpoint,omitempty"` // https URL, or http on a loopback address; empty: the environment's, else the region's
}

func (m *mapping) awspca() *AWSPCA {
	m.only("type", "arn", "template", "lifetime", "profile", "endpoint")
	a := new(AWSPCA)
	parse(m, "arn", &a.ARN, caARN)
	if _, given := m.values["arn"]; !given {
		m.wrong("arn", "it is missing: `aws acm-pca list-certificate-authorities` shows those of your CAs")
	}
	parse(m, "template", &a.Template, caTemplate)
	parse(m, "lifetime", &a.Lifetime, ParseDuration)
	m.word("profile", &a.Profile)
	parse(m, "endpoint", &a.Endpoint, serverURL("AWS Private CA", "https://acm-pca.eu-west-1.amazonaws.com"))
	return a
}

var (
	caARNForm      = regexp.MustCompile(`^arn:[a-z-]+:acm-pca:[a-z0-9-]+:[0-9]{12}:certificate-authority/[A-Za-z0-9-]+$`)
	caTemplateForm = regexp.MustCompile(`^(arn:[a-z-]+:acm-pca:::template/)?[A-Za-z0-9_]+/V[0-9]+$`)
)

func caARN(s string) (string, error) {
	if !caARNForm.MatchString(s) {
		return "", fmt.Errorf("%.120q is not the ARN of a CA: arn:aws:acm-pca:REGION:ACCOUNT:certificate-authority/ID", s)
	}
	return s, nil
}

func caTemplate(s string) (string, error) {
	if !caTemplateForm.MatchString(s) {
		return "", errors.New("it is not a template of AWS Private CA, such as EndEntityCertificate/V1, or its ARN")
	}
	return s, nil
}
