// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// explain says in plain words what to do about the errors that an operator can
// do something about.
func explain(client *api.Client, table string, err error) error {
	if isMissingTable(err) {
		return fmt.Errorf("there is no table %s at %s; make it: keyturn bus init dynamodb --table %s: %w", table, service(client), table, err)
	}
	if none, ok := errors.AsType[*noCredentials](err); ok {
		return fmt.Errorf("no AWS credentials are found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this host a role: %w", none.err)
	}
	if lost, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return fmt.Errorf("%s does not answer: are endpoint and region right, and can this host reach it?: %w", service(client), lost.Err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s has not answered in time: are endpoint and region right, and can this host reach it?: %w", service(client), err)
	}
	a, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return err
	}
	switch a.ErrorCode() {
	case "AccessDeniedException":
		return fmt.Errorf("these AWS credentials do not allow it: give their user or role what docs/dynamodb.md says: %w", err)
	case "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException":
		return fmt.Errorf("%s does not take these AWS credentials: are they expired, or another account's?: %w", service(client), err)
	}
	return err
}

// service is where a client asks, for people.
func service(client *api.Client) string {
	o := client.Options()
	if o.BaseEndpoint != nil {
		return fmt.Sprintf("DynamoDB on %s (region %s)", *o.BaseEndpoint, o.Region)
	}
	return "DynamoDB in region " + o.Region
}

// A noCredentials is that there is nothing to sign a request with.
type noCredentials struct{ err error }

func (e *noCredentials) Error() string { return e.err.Error() }
func (e *noCredentials) Unwrap() error { return e.err }

// A credentials is a provider whose errors are told from others.
type credentials struct{ aws.CredentialsProvider }

// Retrieve implements aws.CredentialsProvider.
func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil && ctx.Err() == nil {
		err = &noCredentials{err}
	}
	return found, err
}
