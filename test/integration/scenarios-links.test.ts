/** WANs that are lost and come back, under streams, downloads and new connections. */
import { testScenarios } from '../support/scenarios.js'

testScenarios('link-down', 'black-hole', 'flapping')
