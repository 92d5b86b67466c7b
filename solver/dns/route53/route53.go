// SPDX-License-Identifier: Apache-2.0

// Package route53 sets records at Amazon Route 53.
package route53

import (
	"errors"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/providers/dns/route53"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/lego"
)

const (
	ttl = 10 // seconds
	// maxAttempts is for one request; Route 53 takes five a second of an account.
	maxAttempts = 5
	// defaultRegion is where requests are signed for: the service is in none.
	defaultRegion = "us-east-1"
)

// Config is who may change which zones.
type Config struct {
	// AccessKeyID and SecretAccessKey are a key of AWS. Without both, the AWS SDK
	// finds the identity of the process: environment, shared files, instance role.
	AccessKeyID     string
	SecretAccessKey dns.Secret
	Region          string // "" is us-east-1
	HostedZoneID    string // "" is found by the name
	AssumeRoleARN   string // "" is none
	ExternalID      string // that the role asks for
}

// New returns a provider. It asks nobody anything yet.
func New(c Config) (dns.Provider, error) {
	if (c.AccessKeyID == "") != (c.SecretAccessKey == "") {
		return nil, errors.New("access_key_id and secret_access_key need each other: give both, or none for the identity of the process")
	}
	if c.ExternalID != "" && c.AssumeRoleARN == "" {
		return nil, errors.New("external_id is for a role: give assume_role_arn, too")
	}
	if c.Region == "" {
		c.Region = defaultRegion
	}
	return lego.New(true, func() (challenge.Provider, error) {
		return route53.NewDNSProviderConfig(&route53.Config{
			AccessKeyID: c.AccessKeyID, SecretAccessKey: string(c.SecretAccessKey), Region: c.Region,
			HostedZoneID: c.HostedZoneID, AssumeRoleArn: c.AssumeRoleARN, ExternalID: c.ExternalID,
			MaxRetries: maxAttempts, TTL: ttl,
		})
	}), nil
}
