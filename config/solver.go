// SPDX-License-Identifier: Apache-2.0

package config

// A SolverType is what a solver of one type can be told.
type SolverType struct {
	// Challenges are the types of challenges that it answers.
	Challenges []string
	// Settings are all that it knows, in the order in which they are explained.
	Settings []SolverSetting
}

// A SolverSetting is one key of a type of solver. Its value is text.
type SolverSetting struct {
	Name string
	// Required says that the solver is of no use without it. Settings that need each
	// other are looked at when the solver is made.
	Required bool
	// Secret says that the value must be shown to nobody, since it is a secret or may
	// hold one.
	Secret bool
	// Doc says what it is, in one line without a full stop.
	Doc string
}

// Setting returns the setting of a name, and whether there is one.
func (t SolverType) Setting(name string) (SolverSetting, bool) {
	for _, s := range t.Settings {
		if s.Name == name {
			return s, true
		}
	}
	return SolverSetting{}, false
}

// SolverTypes are the types of solvers by name. BusSolver is none of them: it has
// no settings and is always there.
//
// This is data, so that a configuration can be checked without what speaks to a
// dozen services; internal/solvers makes the solvers, and its tests hold that
// both know the same.
var SolverTypes = map[string]SolverType{
	"http-01": {http01, []SolverSetting{
		{Name: "listen", Doc: `HOST:PORT to answer on; ":80" if it is left out`},
	}},
	"webroot": {http01, []SolverSetting{
		{Name: "path", Required: true, Doc: "directory that a web server serves for every name on port 80"},
	}},
	"tls-alpn-01": {tlsALPN01, []SolverSetting{
		{Name: "listen", Doc: `HOST:PORT to answer on; ":443" if it is left out`},
	}},

	"cloudflare": {dns01, []SolverSetting{
		{Name: "api_token", Required: true, Secret: true, Doc: "API token that may edit the zone's DNS"},
		{Name: "zone_token", Secret: true, Doc: "API token that may read zones, if api_token may not"},
	}},
	"route53": {dns01, []SolverSetting{
		{Name: "access_key_id", Doc: "AWS access key; without one, the identity that the AWS SDK finds for the manager"},
		{Name: "secret_access_key", Secret: true, Doc: "secret of access_key_id"},
		{Name: "region", Doc: "AWS region; us-east-1 if it is left out"},
		{Name: "hosted_zone_id", Doc: "hosted zone to write to; found by the name if it is left out"},
		{Name: "assume_role_arn", Doc: "role to assume"},
		{Name: "external_id", Doc: "external id that the role asks for"},
	}},
	"google": {dns01, []SolverSetting{
		{Name: "project", Required: true, Doc: "project of the managed zone"},
		{Name: "service_account", Secret: true, Doc: "key file of a service account, as JSON; without one, the application default credentials"},
		{Name: "managed_zone", Doc: "managed zone to write to; found by the name if it is left out"},
	}},
	"azure": {dns01, []SolverSetting{
		{Name: "subscription_id", Required: true, Doc: "subscription of the DNS zone"},
		{Name: "resource_group", Required: true, Doc: "resource group of the DNS zone"},
		{Name: "auth", Doc: "client_secret (if it is left out), managed_identity or workload_identity"},
		{Name: "tenant_id", Doc: "tenant of the application, for client_secret"},
		{Name: "client_id", Doc: "the application, for client_secret"},
		{Name: "client_secret", Secret: true, Doc: "secret of the application, for client_secret"},
		{Name: "cloud", Doc: "public (if it is left out), china or usgovernment"},
	}},
	"digitalocean": {dns01, []SolverSetting{
		{Name: "api_token", Required: true, Secret: true, Doc: "personal access token that may write domains"},
	}},
	"hetzner": {dns01, []SolverSetting{
		{Name: "api_token", Required: true, Secret: true, Doc: "API token of the Hetzner Cloud project, read and write"},
	}},
	"ovh": {dns01, []SolverSetting{
		{Name: "endpoint", Doc: "ovh-eu (if it is left out), ovh-us or ovh-ca"},
		{Name: "application_key", Doc: "application key, with application_secret and consumer_key"},
		{Name: "application_secret", Secret: true, Doc: "secret of the application"},
		{Name: "consumer_key", Secret: true, Doc: "consumer key of the application"},
		{Name: "client_id", Doc: "OAuth2 client instead of an application key, with client_secret"},
		{Name: "client_secret", Secret: true, Doc: "secret of the OAuth2 client"},
	}},
	"gandi": {dns01, []SolverSetting{
		{Name: "access_token", Required: true, Secret: true, Doc: "personal access token that may manage domain name technical configurations"},
	}},
	"desec": {dns01, []SolverSetting{
		{Name: "api_token", Required: true, Secret: true, Doc: "API token"},
	}},
	"powerdns": {dns01, []SolverSetting{
		{Name: "url", Required: true, Doc: "URL of the server's API, without /api/v1"},
		{Name: "api_key", Required: true, Secret: true, Doc: "the server's api-key"},
		{Name: "server", Doc: `the server's id; "localhost" if it is left out`},
	}},

	"exec": {dns01, []SolverSetting{
		{Name: "program", Required: true, Doc: "absolute path of the program to run"},
		{Name: "arguments", Secret: true, Doc: "arguments before those of the call, separated by spaces; no shell reads them"},
		{Name: "timeout", Doc: "how long one call may take, such as 90s; a minute if it is left out"},
	}},
	"webhook": {dns01, []SolverSetting{
		{Name: "url", Required: true, Doc: "https URL, or http on a loopback address, to post to"},
		{Name: "secret", Required: true, Secret: true, Doc: "key that requests are signed with, at least 16 bytes"},
	}},
	"rfc2136": {dns01, []SolverSetting{
		{Name: "server", Required: true, Doc: "HOST:PORT of the primary name server"},
		{Name: "key_name", Required: true, Doc: "name of the TSIG key"},
		{Name: "key_secret", Required: true, Secret: true, Doc: "the TSIG key, in base64"},
		{Name: "key_algorithm", Doc: "hmac-sha256 (if it is left out) or hmac-sha512"},
		{Name: "zone", Doc: "zone to update; found by the name if it is left out"},
		{Name: "ttl", Doc: "seconds that the record may be kept; 60 if it is left out"},
	}},
	"acme-dns": {dns01, []SolverSetting{
		{Name: "url", Required: true, Doc: "URL of the acme-dns server"},
		{Name: "username", Required: true, Doc: "user, as the registration gave it"},
		{Name: "password", Required: true, Secret: true, Doc: "password, as the registration gave it"},
		{Name: "subdomain", Required: true, Doc: "subdomain, as the registration gave it"},
		{Name: "full_domain", Required: true, Doc: "name that _acme-challenge has to be a CNAME to, as the registration gave it"},
	}},
}

var (
	http01    = []string{"http-01"}
	tlsALPN01 = []string{"tls-alpn-01"}
	dns01     = []string{"dns-01"}
)
