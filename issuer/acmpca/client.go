// SPDX-License-Identifier: Apache-2.0

package acmpca

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/acmpca"
	"github.com/aws/smithy-go/logging"

	"github.com/keyturn/keyturn/internal/cahttp"
	"github.com/keyturn/keyturn/issuer"
)

// newClient reads the settings for AWS, and makes a client that repeats, as all of
// AWS's do, what the service has no room for at the moment: three attempts in all.
func newClient(c Config, region string) (aws.Config, *acmpca.Client, *httpClient, error) {
	cfg, err := config.LoadDefaultConfig(context.Background(), func(o *config.LoadOptions) error {
		o.Region, o.SharedConfigProfile = region, c.Profile
		o.HTTPClient = awshttp.NewBuildableClient() // to which AWS_CA_BUNDLE is added
		return nil
	})
	if err != nil {
		return cfg, nil, nil, fmt.Errorf("the settings for AWS: %w", err)
	}
	built, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		return cfg, nil, nil, fmt.Errorf("the settings for AWS have a client of type %T", cfg.HTTPClient)
	}
	client := &httpClient{base: built.GetTransport(), timeout: c.Timeout}
	client.base.MaxResponseHeaderBytes, client.base.Proxy = cahttp.MaxHeader, cahttp.Proxy(client.base.Proxy)
	return cfg, acmpca.NewFromConfig(cfg, func(o *acmpca.Options) {
		o.HTTPClient, o.Logger = client, logging.Nop{} // errors say what there is to say
		if c.Endpoint != "" {
			o.BaseEndpoint = &c.Endpoint
		}
	}), client, nil
}

// An httpClient is the only way to the service. It bounds what comes back, and sends
// nothing that could be changed on the way, wherever the environment leads.
type httpClient struct {
	base    *http.Transport
	timeout time.Duration
}

// Do sends a request once.
func (c *httpClient) Do(r *http.Request) (*http.Response, error) {
	if !cahttp.Protected(r.URL) {
		return nil, fmt.Errorf("the endpoint %s is not https: what comes from there can be changed on the way", r.URL.Host)
	}
	client := http.Client{
		Transport: c.base,
		Timeout:   c.timeout,
		// A request is signed for one server; a redirect is an answer like others.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	cahttp.Bound(resp)
	return resp, nil
}

// credentials asks for them first, so that their lack is told from a refusal; the
// client finds them cached.
func (i *Issuer) credentials(ctx context.Context) error {
	if _, err := i.cfg.Credentials.Retrieve(ctx); err != nil {
		p := &issuer.Problem{Type: NoCredentials, Detail: err.Error()}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w: %w", i, p, ctx.Err())
		}
		return fmt.Errorf("%s: %w: %s", i, p, advice[NoCredentials])
	}
	return nil
}
