//! Groups by hand: UPDATE_AND_CREATE_SUBSCRIPTIONGROUP 200 and its list form 225, GET_ALL_SUBSCRIPTIONGROUP_CONFIG 201,
//! GET_SUBSCRIPTIONGROUP_CONFIG 352, DELETE_SUBSCRIPTIONGROUP 207.

use corelane_wire::ExtHeader;
use corelane_wire::body::{
    SubscriptionGroupConfig, SubscriptionGroupList, SubscriptionGroupWrapper,
};
use corelane_wire::code::response;
use corelane_wire::header::group::{
    DeleteSubscriptiongroupRequest, GetSubscriptiongroupConfigRequest,
};

use super::attribute;
use crate::engine::turn::{Refusal, Request, Turn};
use crate::engine::{Engine, name};
use crate::log::Position;

impl Engine {
    pub(super) fn update_group(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let config = SubscriptionGroupConfig::from_json(req.frame.body)?;
        let config = self.checked_group_config(config)?;
        let end = self.put_group(turn, config)?;
        self.answer_change(turn, req, end);
        Ok(())
    }

    pub(super) fn update_group_list(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let list = SubscriptionGroupList::from_json(req.frame.body)?;
        let checked = |config| self.checked_group_config(config);
        let configs = list.group_config_list.into_iter().map(checked);
        let configs = configs.collect::<Result<Vec<_>, _>>()?;
        let mut end = None;
        for config in configs {
            end = self.put_group(turn, config)?.or(end);
        }
        self.answer_change(turn, req, end);
        Ok(())
    }

    /// The attributes of `config` are changes; those of what it gives are all that the group has.
    fn checked_group_config(
        &self,
        mut config: SubscriptionGroupConfig,
    ) -> Result<SubscriptionGroupConfig, Refusal> {
        name::check_group(&config.group_name)?;
        let most = self.settings.max_topic_queues;
        if !(0..=most).contains(&config.retry_queue_nums) {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!(
                    "retryQueueNums is {}: a group's retry topic has 0 to {most} queues (max_topic_queues)",
                    config.retry_queue_nums
                ),
            ));
        }
        let known = self.groups.get(&config.group_name);
        config.attributes = attribute::changed(
            &attribute::OF_GROUPS,
            known.map(|group| &group.attributes),
            &config.attributes,
        )?;
        Ok(config)
    }

    fn answer_change(&mut self, turn: &mut Turn<'_>, req: &Request<'_>, end: Option<Position>) {
        // Where nothing changed, the request that made it so may still be on its way to the disk.
        let end = end.unwrap_or(turn.log.max_position());
        self.answer_when_durable(turn, req.to, end, 0);
    }

    pub(super) fn all_group_config(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let wrapper = SubscriptionGroupWrapper {
            subscription_group_table: self
                .groups
                .iter()
                .map(|group| (group.group_name.clone(), group.clone()))
                .collect(),
            data_version: self.groups.data_version(),
            forbidden_table: self.forbidden.table().clone(),
        };
        let total = self.groups.count() as i64;
        turn.answer(
            req.to,
            response::SUCCESS,
            None,
            |fields| fields.int_field("totalGroupNum", total),
            &wrapper.to_json(),
        );
        Ok(())
    }

    pub(super) fn group_config(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetSubscriptiongroupConfigRequest::decode(&req.frame.ext)?;
        let group = header.group.to_str();
        let Some(config) = self.groups.get(&group) else {
            return Err(Refusal::new(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!("the group {group} does not exist"),
            ));
        };
        turn.answer_body(req.to, &config.to_json());
        Ok(())
    }

    pub(super) fn delete_group_request(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = DeleteSubscriptiongroupRequest::decode(&req.frame.ext)?;
        let end = self.delete_group(turn, &header.group_name.to_str(), header.clean_offset)?;
        self.answer_change(turn, req, end);
        Ok(())
    }
}
