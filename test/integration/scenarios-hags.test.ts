/** HAGs that are lost and come back, under streams and new connections. */
import { testScenarios } from '../support/scenarios.js'

testScenarios('hag-crash', 'hag-failover', 'hag-black-hole')
