// SPDX-License-Identifier: Apache-2.0

package azure_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/azure"
)

// TestNew holds that a provider of any cloud and identity is made without asking
// for anything: its library knows no other endpoints than the clouds'.
func TestNew(t *testing.T) {
	for _, c := range []azure.Config{
		{TenantID: "t", ClientID: "c", ClientSecret: "s"},
		{Auth: "client_secret", TenantID: "t", ClientID: "c", ClientSecret: "s", Cloud: "usgovernment"},
		{Auth: "managed_identity", Cloud: "china"},
		{Auth: "workload_identity", Cloud: "public"},
	} {
		c.SubscriptionID, c.ResourceGroup = "subscription", "group"
		p, err := azure.New(c)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if k, ok := p.(dns.Keeper); ok && k.KeepsOthers() {
			t.Error("it says that it keeps others: it deletes whole sets")
		}
	}
	_, err := azure.New(azure.Config{SubscriptionID: "s", ResourceGroup: "g", ClientSecret: "secret"})
	if err == nil || !strings.Contains(err.Error(), "tenant_id") {
		t.Error(err)
	}
}
