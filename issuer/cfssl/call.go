// SPDX-License-Identifier: Apache-2.0

package cfssl

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/keyturn/keyturn/internal/cahttp"
)

// A reply is the form of all of CFSSL's answers.
type reply struct {
	Success *bool           `json:"success"`
	Result  json.RawMessage `json:"result"`
	Errors  []struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
}

// ask posts a request to an endpoint and reads the result, unless it is nil.
func (i *Issuer) ask(ctx context.Context, endpoint string, request, result any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", i, endpoint, err)
	}
	return i.post(ctx, endpoint, body, result)
}

// askSigned is ask for the endpoint authsign: what is asked goes with its HMAC under
// the profile's key, both in base64.
func (i *Issuer) askSigned(ctx context.Context, key []byte, request, result any) error {
	inner, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("%s: authsign: %w", i, err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(inner)
	return i.ask(ctx, "authsign", struct {
		Token   []byte `json:"token"`
		Request []byte `json:"request"`
	}{mac.Sum(nil), inner}, result)
}

func (i *Issuer) post(ctx context.Context, endpoint string, body []byte, result any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, i.config.Address+"/api/v1/cfssl/"+endpoint, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", i, err)
	}
	request.Header.Set("Content-Type", "application/json")
	resp, err := i.client.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w", i, unanswered(ctx, err))
	}
	defer resp.Body.Close()
	cahttp.Bound(resp)
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", i, unanswered(ctx, err))
	}
	var answer reply
	known := json.Unmarshal(text, &answer) == nil && answer.Success != nil
	if !known || !*answer.Success || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %w", i, explain(endpoint, resp, answer, known, text))
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return fmt.Errorf("%s: %w", i, unanswered(ctx, fmt.Errorf("%s: %w", notCFSSL, err)))
	}
	return nil
}
