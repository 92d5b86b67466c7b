// SPDX-License-Identifier: Apache-2.0

package secret_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/secret"
)

// Secrets Manager and Parameter Store are services of other people's, which have no
// server to start here. So the client of AWS talks to a server that speaks as
// their API references document: a POST with X-Amz-Target and a JSON body, signed
// with Signature Version 4.

const (
	accessKey = "AKIDEXAMPLE"
	secretARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:keyturn-AbCdEf"
	paramARN  = "arn:aws:ssm:eu-west-1:123456789012:parameter/keyturn/identity"
)

// A reply is what the server says to one request.
type reply struct {
	status int
	body   string
}

func fault(code, message string) reply {
	return reply{http.StatusBadRequest, fmt.Sprintf(`{"__type":%q,"message":%q}`, code, message)}
}

func secretString(text string) reply {
	body, err := json.Marshal(map[string]any{"ARN": secretARN, "Name": "keyturn", "SecretString": text, "VersionStages": []string{"AWSCURRENT"}})
	if err != nil {
		panic(err)
	}
	return reply{http.StatusOK, string(body)}
}

// serve starts the server, which gives the replies in turn, and sets an environment
// in which the client finds it, and nothing of the machine it runs on. It checks
// each request's target, body and signature.
func serve(t *testing.T, service, target, body string, replies ...reply) {
	t.Helper()
	signature := regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=` + accessKey + `/\d{8}/eu-west-1/` + service +
		`/aws4_request, SignedHeaders=[a-z0-9;-]*host;[a-z0-9;-]*, Signature=[0-9a-f]{64}$`)
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("X-Amz-Target"); r.Method != http.MethodPost || r.URL.Path != "/" || got != target {
			t.Errorf("%s %s with the target %q, want POST / with %q", r.Method, r.URL, got, target)
		}
		if got := r.Header.Get("Authorization"); !signature.MatchString(got) {
			t.Errorf("the signature is %q, want %s", got, signature)
		}
		if got, err := io.ReadAll(r.Body); err != nil || !sameJSON(string(got), body) {
			t.Errorf("the body is %s (%v), want %s", got, err, body)
		}
		if asked == len(replies) {
			t.Errorf("more than %d requests", len(replies))
			asked--
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(replies[asked].status)
		_, _ = io.WriteString(w, replies[asked].body)
		asked++
	}))
	t.Cleanup(func() {
		server.Close()
		if asked != len(replies) {
			t.Errorf("%d requests, want %d", asked, len(replies))
		}
	})
	environment(t)
	t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", server.URL)
	t.Setenv("AWS_ENDPOINT_URL_SSM", server.URL)
}

func environment(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID":           accessKey,
		"AWS_SECRET_ACCESS_KEY":       "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		"AWS_SESSION_TOKEN":           "",
		"AWS_REGION":                  "eu-west-1",
		"AWS_DEFAULT_REGION":          "",
		"AWS_PROFILE":                 "",
		"AWS_CONFIG_FILE":             "/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
		"AWS_EC2_METADATA_DISABLED":   "true",
		"AWS_WEB_IDENTITY_TOKEN_FILE": "",

		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI":     "",
	} {
		t.Setenv(name, value)
	}
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && fmt.Sprint(x) == fmt.Sprint(y)
}

func fromSecretsManager(t *testing.T, id string, replies ...reply) {
	t.Helper()
	serve(t, "secretsmanager", "secretsmanager.GetSecretValue", fmt.Sprintf(`{"SecretId":%q}`, id), replies...)
}

func fromParameterStore(t *testing.T, replies ...reply) {
	t.Helper()
	serve(t, "ssm", "AmazonSSM.GetParameter", fmt.Sprintf(`{"Name":%q,"WithDecryption":true}`, paramARN), replies...)
}

func TestFetch(t *testing.T) {
	binary := "\x00" + marker + "\xff"
	for _, c := range []struct {
		name, value, id, want string
		reply                 reply
	}{
		{"string", secretARN, secretARN, marker, secretString(marker)},
		{"name", "awssm:keyturn/identity", "keyturn/identity", marker, secretString(marker)},
		{"binary", secretARN, secretARN, binary, reply{200, `{"SecretBinary":"` + base64.StdEncoding.EncodeToString([]byte(binary)) + `"}`}},
		{"field", secretARN + "#identity", secretARN, marker + "\n", secretString(`{"port":5,"identity":"` + marker + `\n"}`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			fromSecretsManager(t, c.id, c.reply)
			text, origin, err := secret.Read(t.Context(), c.value)
			if err != nil || string(text) != c.want || origin != c.value {
				t.Errorf("Read = %q, %q, %v; want %q, %q", text, origin, err, c.want, c.value)
			}
		})
	}
	for value, kept := range map[string]string{paramARN: marker, paramARN + "#a b": `{"a b":"` + marker + `"}`} {
		t.Run(value, func(t *testing.T) {
			fromParameterStore(t, reply{200, fmt.Sprintf(`{"Parameter":{"Name":"/keyturn/identity","Type":"SecureString","Value":%q,"Version":3}}`, kept)})
			text, origin, err := secret.Read(t.Context(), value)
			if err != nil || string(text) != marker || origin != value {
				t.Errorf("Read = %q, %q, %v; want %q", text, origin, err, marker)
			}
		})
	}
}

// The region of an ARN counts, whatever that of the environment is.
func TestRegionOfARN(t *testing.T) {
	fromSecretsManager(t, secretARN, secretString(marker))
	t.Setenv("AWS_REGION", "us-east-1")
	if _, _, err := secret.Read(t.Context(), secretARN); err != nil {
		t.Error(err)
	}
}

func TestThrottled(t *testing.T) {
	fromSecretsManager(t, "a", fault("ThrottlingException", "Rate exceeded"), reply{http.StatusInternalServerError, `{"__type":"InternalServiceError"}`}, secretString(marker))
	text, _, err := secret.Read(t.Context(), "awssm:a")
	if err != nil || string(text) != marker {
		t.Errorf("Read = %q, %v; want it after two more attempts", text, err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, value string
		reply       reply
		want        []string
	}{
		{"missing", "awssm:a", fault("ResourceNotFoundException", "Secrets Manager can't find the specified secret."), []string{"awssm:a is not there", "region eu-west-1"}},
		{"denied", "awssm:a", fault("AccessDeniedException", "User: arn:aws:sts::1:assumed-role/r is not authorized"), []string{"allow secretsmanager:GetSecretValue", "kms:Decrypt", "assumed-role/r"}},
		{"deleted", "awssm:a", fault("InvalidRequestException", "it was marked for deletion"), []string{"awssm:a: ", "marked for deletion"}},
		{"no JSON", "awssm:a#k", secretString(marker), []string{"awssm:a#k: ", "not a JSON object"}},
		{"half JSON", "awssm:a#k", secretString(`{"k":"` + marker), []string{"not a JSON object"}},
		{"wrong key", "awssm:a#k", secretString(`{"other":"` + marker + `"}`), []string{`no field "k"`}},
		{"number", "awssm:a#k", secretString(`{"k":7}`), []string{`the field "k" is not a string`}},
		{"null", "awssm:a#k", secretString(`{"k":null}`), []string{`the field "k" is not a string`}},
		{"empty", "awssm:a", secretString(""), []string{"awssm:a is empty"}},
		{"large", "awssm:a", secretString(strings.Repeat(marker, secret.MaxSize)), []string{"awssm:a is larger than the 65536 bytes"}},
		{"malformed", "awssm:a", reply{200, `{"SecretString":"` + marker}, []string{"awssm:a: "}},
		{"wrong type", "awssm:a", reply{200, `{"SecretString":{"a":"` + marker + `"}}`}, []string{"awssm:a: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fromSecretsManager(t, "a", c.reply)
			_, _, err := secret.Read(t.Context(), c.value)
			wantError(t, err, c.want...)
		})
	}
	t.Run("missing parameter", func(t *testing.T) {
		fromParameterStore(t, reply{http.StatusBadRequest, `{"__type":"ParameterNotFound"}`})
		_, _, err := secret.Read(t.Context(), paramARN)
		wantError(t, err, paramARN+" is not there", "region eu-west-1")
	})
	t.Run("denied parameter", func(t *testing.T) {
		fromParameterStore(t, fault("AccessDeniedException", "no"))
		_, _, err := secret.Read(t.Context(), paramARN)
		wantError(t, err, "allow ssm:GetParameter")
	})
	t.Run("no parameter", func(t *testing.T) {
		fromParameterStore(t, reply{200, `{}`})
		_, _, err := secret.Read(t.Context(), paramARN)
		wantError(t, err, paramARN, "no parameter")
	})
}

func TestNoRegion(t *testing.T) {
	environment(t)
	t.Setenv("AWS_REGION", "")
	_, _, err := secret.Read(t.Context(), "awssm:a")
	wantError(t, err, "awssm:a: no region is set", "AWS_REGION")
}

func TestNoCredentials(t *testing.T) {
	environment(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	_, _, err := secret.Read(t.Context(), "awssm:a")
	wantError(t, err, "awssm:a: no credentials", "AWS_ACCESS_KEY_ID")
}

// A server that does not answer is waited for no longer than the caller wants.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then a server sees that the client went away
		cancel()
		<-r.Context().Done()
	}))
	defer server.Close()
	environment(t)
	t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", server.URL)
	_, _, err := secret.Read(ctx, "awssm:a")
	wantError(t, err, "awssm:a: ")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want context.Canceled", err)
	}
}
