// SPDX-License-Identifier: Apache-2.0

package acmpcatest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// authorization is the header of Signature Version 4.
var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([A-Z0-9]+)/(\d{8})/([a-z0-9-]+)/acm-pca/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$`)

// skew is by how much the clocks may differ.
const skew = 5 * time.Minute

// checkSignature signs what was received anew, and compares. It answers as all of AWS's
// services do.
func checkSignature(r *http.Request, body []byte, now time.Time) Fault {
	header := r.Header.Get("Authorization")
	if header == "" {
		return refuse("MissingAuthenticationToken", "Missing Authentication Token")
	}
	parts := authorization.FindStringSubmatch(header)
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	switch {
	case parts == nil || err != nil || parts[3] != Region:
		return refuse("IncompleteSignature", "The request signature does not conform to AWS standards, or is for another region")
	case parts[1] != AccessKey:
		return refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	case at.Sub(now).Abs() > skew || parts[2] != at.Format("20060102"):
		return refuse("InvalidSignatureException", "Signature expired")
	}
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return refuse("IncompleteSignature", "%v", err)
	}
	signed := strings.Split(parts[4], ";")
	for _, name := range signed {
		if name != "host" && name != "content-length" {
			again.Header[http.CanonicalHeaderKey(name)] = slices.Clone(r.Header.Values(name))
		}
	}
	if !slices.Contains(signed, "content-length") {
		again.ContentLength = 0 // so that the signer leaves it out, too
	}
	sum := sha256.Sum256(body)
	credentials := aws.Credentials{AccessKeyID: AccessKey, SecretAccessKey: SecretKey, SessionToken: r.Header.Get("X-Amz-Security-Token")}
	if err := v4.NewSigner().SignHTTP(r.Context(), credentials, again, hex.EncodeToString(sum[:]), "acm-pca", Region, at); err != nil {
		return refuse("IncompleteSignature", "%v", err)
	}
	if again.Header.Get("Authorization") != header {
		return refuse("InvalidSignatureException", "The request signature we calculated does not match the signature you provided.")
	}
	return Fault{}
}
