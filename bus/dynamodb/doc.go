// SPDX-License-Identifier: Apache-2.0

// Package dynamodb is the bus over AWS DynamoDB: one table for any number of
// tenants, and no server to run.
package dynamodb
