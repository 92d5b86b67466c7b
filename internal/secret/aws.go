// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"
)

// fetchTimeout bounds one fetch, with the credentials it needs and the attempts
// that the client makes: three, as is its default.
const fetchTimeout = 10 * time.Second

// nameScheme leads the name of a secret in the region of the environment.
const nameScheme = "awssm:"

// A service keeps texts.
type service struct {
	permission string // to read one
	prefix     string // of the resource in an ARN
	get        func(ctx context.Context, cfg aws.Config, id string) ([]byte, error)
}

// services have the names that ARNs have.
var services = map[string]service{
	"secretsmanager": {"secretsmanager:GetSecretValue", "secret:", getSecret},
	"ssm":            {"ssm:GetParameter", "parameter/", getParameter},
}

// A reference is a text kept by AWS.
type reference struct {
	service
	whole  string // as it was given
	region string // empty is that of the environment
	id     string // what the service is asked for
	key    string // of the field; empty is the whole text
}

func isReference(value string) bool {
	return strings.HasPrefix(value, "arn:") || strings.HasPrefix(value, nameScheme)
}

func parseReference(value string) (reference, error) {
	r := reference{whole: value}
	var keyed bool
	r.id, r.key, keyed = strings.Cut(value, "#")
	if keyed && r.key == "" {
		return r, fmt.Errorf("%s: no key stands after the #", value)
	}
	if name, ok := strings.CutPrefix(r.id, nameScheme); ok {
		if name == "" {
			return r, fmt.Errorf("%s: no name stands after %s", value, nameScheme)
		}
		r.service, r.id = services["secretsmanager"], name
		return r, nil
	}
	a, err := arn.Parse(r.id)
	if err != nil {
		return r, fmt.Errorf("%s is not an ARN, which has six parts: arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE", value)
	}
	s, ok := services[a.Service]
	if name, found := strings.CutPrefix(a.Resource, s.prefix); !ok || !found || name == "" || a.Region == "" {
		return r, fmt.Errorf("%s is neither arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME nor arn:aws:ssm:REGION:ACCOUNT:parameter/NAME", value)
	}
	r.service, r.region = s, a.Region
	return r, nil
}

// fetch returns the text of r. Its errors name r, and never what was fetched.
func (r reference) fetch(ctx context.Context) ([]byte, error) {
	limited, cancel := context.WithTimeoutCause(ctx, fetchTimeout,
		fmt.Errorf("no answer came within %v: look at the way to the service (endpoint, proxy, VPC) and at the credentials' source", fetchTimeout))
	defer cancel()
	cfg, err := config.LoadDefaultConfig(limited, func(o *config.LoadOptions) error {
		o.Region = r.region
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: reading the settings for AWS: %w", r.whole, err)
	}
	if cfg.Region == "" {
		return nil, fmt.Errorf("%s: no region is set: set AWS_REGION, or give the ARN", r.whole)
	}
	text, err := r.ask(limited, cfg)
	switch {
	case err != nil && limited.Err() != nil:
		return nil, fmt.Errorf("%s: %w", r.whole, context.Cause(limited))
	case err != nil:
		return nil, r.explain(err, cfg.Region)
	case r.key != "":
		return r.field(text)
	}
	return text, nil
}

// ask asks for the credentials first, so that their lack is told from a refusal; the
// client finds them cached.
func (r reference) ask(ctx context.Context, cfg aws.Config) ([]byte, error) {
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return nil, fmt.Errorf("no credentials for AWS: give this process a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: %w", err)
	}
	return r.get(ctx, cfg, r.id)
}

// explain says what to do about an error of the service.
func (r reference) explain(err error, region string) error {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return fmt.Errorf("%s: %w", r.whole, err)
	}
	switch answer.ErrorCode() {
	case "ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound":
		return fmt.Errorf("%s is not there (region %s): look at its name, region and account: %w", r.whole, region, err)
	case "AccessDeniedException":
		return fmt.Errorf("%s may not be read: allow %s on it, and kms:Decrypt on its key if that is one of your own: %w", r.whole, r.permission, err)
	}
	return fmt.Errorf("%s: %w", r.whole, err)
}

// field returns a field of a JSON object. The decoder's errors quote what they
// stumble over, so they are not passed on.
func (r reference) field(text []byte) ([]byte, error) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return nil, fmt.Errorf("%s: what is kept there is not a JSON object: leave out #%s to take all of it", r.whole, r.key)
	}
	raw, ok := fields[r.key]
	if !ok {
		return nil, fmt.Errorf("%s: the JSON object that is kept there has no field %q", r.whole, r.key)
	}
	var value *string
	if json.Unmarshal(raw, &value) != nil || value == nil {
		return nil, fmt.Errorf("%s: the field %q is not a string", r.whole, r.key)
	}
	return []byte(*value), nil
}

func getSecret(ctx context.Context, cfg aws.Config, id string) ([]byte, error) {
	out, err := secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &id})
	if err != nil {
		return nil, err
	}
	if out.SecretString != nil {
		return []byte(*out.SecretString), nil
	}
	return out.SecretBinary, nil
}

func getParameter(ctx context.Context, cfg aws.Config, id string) ([]byte, error) {
	out, err := ssm.NewFromConfig(cfg).GetParameter(ctx, &ssm.GetParameterInput{Name: &id, WithDecryption: aws.Bool(true)})
	if err != nil {
		return nil, err
	}
	if out.Parameter == nil {
		return nil, errors.New("the answer has no parameter")
	}
	return []byte(aws.ToString(out.Parameter.Value)), nil
}
