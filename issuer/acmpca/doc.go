// SPDX-License-Identifier: Apache-2.0

// Package acmpca has certificates signed by AWS Private CA, formerly ACM Private CA.
//
//	ca, err := acmpca.New(acmpca.Config{
//		ARN: "arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/12345678-1234-1234-1234-123456789012",
//	})
//	chain, err := ca.Issue(ctx, csr, 0)
//
// Credentials are found as by every AWS tool: AWS_ACCESS_KEY_ID and its like, the shared
// files, the role of the function, container, pod or instance. Their policy has to allow
// acm-pca:DescribeCertificateAuthority, acm-pca:IssueCertificate and
// acm-pca:GetCertificate on the CA, and acm-pca:RevokeCertificate to revoke.
//
// Certificates are signed by a template, with the signing algorithm that the CA was
// made with, which an [Issuer] asks for once. The private key never leaves the caller.
//
// Each certificate is paid for, so that none is asked for twice: what is asked carries a
// token that is the same for the same request, by which AWS recognises it for five
// minutes. A lifetime of whole days is asked for in days, another as an end that is
// rounded up to the minute, and belongs to the request. So who asks for a new certificate
// has to make a new request: within these minutes, the same one brings the same
// certificate, even one that was revoked meanwhile.
package acmpca
