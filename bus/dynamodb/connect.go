// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/logging"

	"github.com/keyturn/keyturn/bus"
)

// Scheme is that of this engine's URLs.
const Scheme = "dynamodb"

// requestTimeout bounds one attempt of one request to DynamoDB. The SDK makes
// three attempts, unless AWS_MAX_ATTEMPTS says otherwise.
const requestTimeout = 10 * time.Second

// dialTimeout bounds how long the SDK waits for a connection: an endpoint that is
// not reached from here, as from a VPC without a way to it, lets packets vanish.
const dialTimeout = 3 * time.Second

// Options say which table the bus is, and whose.
type Options struct {
	// URL is dynamodb://TABLE, with "region", "endpoint" and "profile" as
	// parameters where the AWS_* variables and the shared configuration of the
	// AWS SDK do not say them, or not rightly.
	URL string
	// Tenant is "default" if empty.
	Tenant string
	// Name is told to AWS with every request, in the user agent; "" is "keyturn".
	Name string
	// Logger gets a line when the bus cannot be reached or is reached again; nil
	// is slog.Default.
	Logger *slog.Logger
}

func init() { bus.Register(driver{}, Scheme) }

type driver struct{}

// Open implements bus.Driver. There are no credentials in the directory: they
// are AWS's.
func (driver) Open(_, url string, o bus.Options) (bus.Conn, error) {
	return Connect(Options{URL: url, Tenant: o.Tenant, Name: o.Name, Logger: o.Logger})
}

// User implements bus.Driver: AWS knows who a host is.
func (driver) User([]byte) (string, error) { return "", nil }

// Credentials implements bus.Driver: there are none of our own.
func (driver) Credentials(string, []byte) ([]byte, error) { return nil, nil }

// Connect returns a tenant's log. It asks nobody and returns at once, whether
// the table can be reached or not; only malformed URLs and AWS configurations are
// errors. Close ends it.
func Connect(o Options) (*Log, error) {
	client, table, err := dial(o)
	if err != nil {
		return nil, err
	}
	return &Log{
		api:    client,
		table:  table,
		space:  space(cmp.Or(o.Tenant, "default")),
		logger: cmp.Or(o.Logger, slog.Default()),
		calls:  make(map[*context.CancelCauseFunc]struct{}),
		lanes:  make(map[string]*lane),
	}, nil
}

// tableName is what AWS allows.
var tableName = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,255}$`)

// dial returns a client of the URL's table. It makes no connection yet.
func dial(o Options) (client *api.Client, table string, err error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != Scheme || u.Host == "" || u.User != nil || u.Path != "" || u.Fragment != "" {
		return nil, "", fmt.Errorf("bus: the URL is not of the form %s://TABLE or %s://TABLE?region=REGION", Scheme, Scheme)
	}
	if !tableName.MatchString(u.Host) {
		return nil, "", fmt.Errorf("bus: the table's name %.300q: DynamoDB wants 3 to 255 letters, digits, underscores, periods and hyphens", u.Host)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, "", fmt.Errorf("bus: the parameters of the bus URL: %w", err)
	}
	var endpoint string
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(requestTimeout).
			WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout })),
		config.WithAppID(cmp.Or(o.Name, "keyturn")),
		config.WithLogger(logging.LoggerFunc(func(_ logging.Classification, format string, v ...any) {
			cmp.Or(o.Logger, slog.Default()).Debug("the AWS SDK reports", "text", fmt.Sprintf(format, v...))
		})),
	}
	for name, values := range query {
		switch value := values[0]; name {
		case "region":
			options = append(options, config.WithRegion(value))
		case "profile":
			options = append(options, config.WithSharedConfigProfile(value))
		case "endpoint":
			if e, err := url.Parse(value); err != nil || e.Host == "" || e.User != nil {
				return nil, "", errors.New("bus: the endpoint in the bus URL is not a URL of the form https://HOST")
			}
			endpoint = value
		default:
			return nil, "", fmt.Errorf("bus: the bus URL has the parameter %q: region, endpoint and profile are known", name)
		}
	}
	// It reads files and variables, and asks nobody.
	cfg, err := config.LoadDefaultConfig(context.Background(), options...)
	if err != nil {
		return nil, "", fmt.Errorf("bus: the AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return nil, "", errors.New("bus: no AWS region is set: add ?region=REGION to the bus URL, or set AWS_REGION")
	}
	return api.NewFromConfig(cfg, func(o *api.Options) {
		o.Credentials = credentials{o.Credentials}
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
	}), u.Host, nil
}
