// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
)

const pcaARN = "arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/12345678-1234-1234-1234-123456789012"

func TestAWSPCA(t *testing.T) {
	for in, want := range map[string]config.AWSPCA{
		"": {ARN: pcaARN},
		", template: EndEntityServerAuthCertificate/V1, lifetime: 7d": {
			ARN: pcaARN, Template: "EndEntityServerAuthCertificate/V1", Lifetime: config.Duration(7 * 24 * time.Hour),
		},
		", template: 'arn:aws:acm-pca:::template/EndEntityCertificate/V1', profile: web, endpoint: 'http://127.0.0.1:5000'": {
			ARN: pcaARN, Template: "arn:aws:acm-pca:::template/EndEntityCertificate/V1", Profile: "web", Endpoint: "http://127.0.0.1:5000",
		},
	} {
		got, err := config.ParseShared(fmt.Appendf(nil, "issuers: {ca: {type: awspca, arn: '%s'%s}}", pcaARN, in))
		if err != nil {
			t.Errorf("%v in\n%s", err, in)
			continue
		}
		if diff := cmp.Diff(&want, got.Issuers["ca"].AWSPCA); diff != "" {
			t.Errorf("%s in\n%s", diff, in)
		}
		again(t, got)
	}
}

func TestAWSPCARefuses(t *testing.T) {
	for in, want := range map[string]string{
		"profile: web": "line 1: issuers.ca.arn: it is missing",
		"arn: 'arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/1/certificate/2'": "certificate/2\" is not the ARN of a CA",
		"arn: 'arn:aws:acm:eu-west-1:123456789012:certificate/1'":                             "is not the ARN of a CA",
		"arn: " + pcaARN + ", template: web":                                                  "issuers.ca.template: it is not a template of AWS Private CA",
		"arn: " + pcaARN + ", lifetime: soon":                                                 "issuers.ca.lifetime: ",
		"arn: " + pcaARN + ", endpoint: 'http://pca.example.com'":                             "issuers.ca.endpoint: \"http://pca.example.com\" is not https",
		"arn: " + pcaARN + ", access_key_id: hunter2":                                         "issuers.ca.access_key_id: unknown key; known here are type, arn",
	} {
		_, err := config.ParseShared(fmt.Appendf(nil, "issuers: {ca: {type: awspca, %s}}", in))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v; want %q", in, err, want)
		}
	}
}
